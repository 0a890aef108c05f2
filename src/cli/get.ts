// keelsonctl get, and the request of a get in a txn.

import type { EtcdClient } from '../client/client.ts';
import { rpc } from '../client/rpc.ts';
import { SortOrder, SortTarget } from '../proto/kv-request.ts';
import type { RangeRequest, RangeResponse } from '../proto/kv-schema.ts';
import type { Message, MessageInit } from '../proto/message.ts';
import { textOf } from './byte-text.ts';
import { badArguments, ExitCode, ExitError } from './exit.ts';
import { checkPrefixAndFromKey, keyRange } from './key-range.ts';
import type { GetFlags } from './kv-flags.ts';
import type { Session } from './session.ts';

type Request = MessageInit<typeof RangeRequest>;
type Response = Message<typeof RangeResponse>;

const orders: ReadonlyMap<string, number> = new Map([
  ['', SortOrder.none],
  ['ASCEND', SortOrder.ascend],
  ['DESCEND', SortOrder.descend],
]);
const targets: ReadonlyMap<string, number> = new Map([
  ['', SortTarget.key],
  ['KEY', SortTarget.key],
  ['VERSION', SortTarget.version],
  ['CREATE', SortTarget.create],
  ['MODIFY', SortTarget.mod],
  ['VALUE', SortTarget.value],
]);

export async function runGet(session: Session, words: readonly string[], flags: GetFlags): Promise<void> {
  const request = getRequest(words, flags);
  const client = await session.connect();
  const deadlineMs = session.deadlineMs();
  const response = flags.stream
    ? await collect(client, request, deadlineMs)
    : await client.call(rpc.range, request, { deadlineMs });
  // After the call, as in etcdctl: a wrong key fails with the server's error first.
  if (flags.countOnly && session.format !== 'fields') {
    throw badArguments('--count-only is only for `--write-out=fields`');
  }
  if (flags.printValueOnly && !session.isSimple) {
    throw badArguments('print-value-only is only for `--write-out=simple`');
  }
  session.print('get', { response, valuesOnly: flags.printValueOnly });
}

/** The chunks of a RangeStream as one response. */
async function collect(client: EtcdClient, request: Request, deadlineMs: number): Promise<Response> {
  let whole: Response = { header: undefined, kvs: [], more: false, count: 0 };
  for await (const { rangeResponse: chunk } of client.stream(rpc.rangeStream, request, { deadlineMs })) {
    if (chunk === undefined) continue;
    for (const kv of chunk.kvs) whole.kvs.push(kv);
    whole = {
      header: chunk.header ?? whole.header,
      kvs: whole.kvs,
      more: whole.more || chunk.more,
      count: chunk.count || whole.count,
    };
  }
  return whole;
}

export function getRequest(words: readonly string[], flags: GetFlags): Request {
  if (words.length === 0) {
    throw badArguments('get command needs one argument as key and an optional argument as range_end');
  }
  checkPrefixAndFromKey(flags);
  if (flags.keysOnly && flags.countOnly) {
    throw badArguments('`--keys-only` and `--count-only` cannot be set at the same time, choose one');
  }
  const serializable = isSerializable(flags.consistency);
  const range = keyRange(words, flags);
  const order = choice(orders, flags.order, 'bad sort order');
  const sortTarget = choice(targets, flags.sortBy, 'bad sort target');
  checkRevisions('Create', flags.minCreateRev, flags.maxCreateRev);
  checkRevisions('Mod', flags.minModRev, flags.maxModRev);
  return {
    ...range,
    serializable,
    limit: flags.limit,
    revision: Math.max(0, flags.rev),
    // What the server does anyway, without sorting.
    sortOrder: sortTarget === SortTarget.key && order === SortOrder.ascend ? SortOrder.none : order,
    sortTarget,
    keysOnly: flags.keysOnly,
    countOnly: flags.countOnly,
    minCreateRevision: Math.max(0, flags.minCreateRev),
    maxCreateRevision: Math.max(0, flags.maxCreateRev),
    minModRevision: Math.max(0, flags.minModRev),
    maxModRevision: Math.max(0, flags.maxModRev),
  };
}

export function isSerializable(consistency: string): boolean {
  if (consistency === 's') return true;
  if (consistency === 'l') return false;
  throw new ExitError(ExitCode.badFeature, `unknown consistency flag ${JSON.stringify(textOf(consistency))}`);
}

function choice(values: ReadonlyMap<string, number>, given: string, complaint: string): number {
  const value = values.get(given.toUpperCase());
  if (value === undefined) throw new ExitError(ExitCode.badFeature, `${complaint} ${textOf(given)}`);
  return value;
}

function checkRevisions(kind: 'Create' | 'Mod', min: number, max: number): void {
  if (max <= 0 || min <= max) return;
  throw new ExitError(ExitCode.badFeature, `getMin${kind}Rev(=${min}) > getMax${kind}Rev(=${max})`);
}
