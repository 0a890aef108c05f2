// The labels of metrics that count what others send: a member's id, or the address of who sent nonsense. etcd labels by whatever a request
// says and by its port, so that whoever sends requests makes series without end. Here members have their own, the first few others too, and
// all the rest share one.

import { senderLabelsMax } from '../cluster-limits.ts';
import type { NodeId } from '../raft/types.ts';

export const otherSenders = 'other';

export class SenderLabels {
  readonly #isPeer: (id: NodeId) => boolean;
  readonly #ids: Set<string> = new Set();
  readonly #hosts: Set<string> = new Set();

  constructor(isPeer: (id: NodeId) => boolean) {
    this.#isPeer = isPeer;
  }

  /** Hexadecimal. */
  ofId(id: NodeId): string {
    const text = id.toString(16);
    return this.#isPeer(id) ? text : bounded(this.#ids, text);
  }

  ofHost(host: string): string {
    return bounded(this.#hosts, host);
  }
}

function bounded(known: Set<string>, text: string): string {
  if (known.has(text)) return text;
  if (known.size >= senderLabelsMax) return otherSenders;
  known.add(text);
  return text;
}
