// Members that are not peers yet, by the addresses that requests carry. Whoever knows the cluster's id can fill it with what is no member,
// so nobody has a place for ever: the oldest of those that never answered makes way, then of those that do not answer now, then of all.

import { peerRemotesMax } from '../cluster-limits.ts';
import type { NodeId } from '../raft/types.ts';
import { Remote } from './remote.ts';
import { idText, type TransportContext } from './transport-context.ts';

const CALLER = 'peer/remote-table.ts';

export class RemoteTable {
  /** The oldest first. */
  readonly #remotes: Map<NodeId, Remote> = new Map();

  get(id: NodeId): Remote | undefined {
    return this.#remotes.get(id);
  }

  /** Whether one may be added under this id with these addresses. Another's, when those that are known lead nowhere. */
  isNews(id: NodeId, urls: readonly string[]): boolean {
    const known = this.#remotes.get(id);
    return known === undefined || (known.reach !== 'answers' && known.urls.join() !== urls.join());
  }

  add(context: TransportContext, id: NodeId, urls: readonly string[]): void {
    this.#remotes.get(id)?.cut();
    this.#remotes.delete(id);
    if (this.#remotes.size >= peerRemotesMax) this.#makeRoom(context);
    this.#remotes.set(id, new Remote(context, id, urls));
  }

  /** It is a peer from now on. */
  release(id: NodeId): void {
    this.#remotes.get(id)?.stop();
    this.#remotes.delete(id);
  }

  stop(): void {
    for (const remote of this.#remotes.values()) remote.cut();
    this.#remotes.clear();
  }

  #makeRoom({ logger, localText }: TransportContext): void {
    const all = [...this.#remotes.values()];
    const given =
      all.find(({ reach }) => reach === 'never answered') ?? all.find(({ reach }) => reach !== 'answers') ?? all[0]!;
    given.cut();
    this.#remotes.delete(given.id);
    logger.info(CALLER, 'forgot a remote peer, for another', {
      'local-member-id': localText,
      'remote-peer-id': idText(given.id),
      'remote-peer-urls': given.urls,
    });
  }
}
