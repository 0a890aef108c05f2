// Requests and answers of KV in the short form that tests write: {put: {...}} for {requestPut: {...}}, headers of the revision
// alone. The same messages as src/proto/kv-schema.ts, which is the client's form.

import { Compare, DeleteRangeRequest, PutRequest, RangeRequest } from '../proto/kv-schema.ts';
import { decode, encode, type Message, type MessageInit, type Schema } from '../proto/message.ts';
import { KeyValue } from '../proto/mvccpb.ts';

export const RangeMessage: typeof RangeRequest = RangeRequest;
export const PutMessage: typeof PutRequest = PutRequest;
export const DeleteMessage: typeof DeleteRangeRequest = DeleteRangeRequest;

/** Only the revision is set inside a Txn. */
const Header = { revision: { no: 3, kind: 'int' } } as const;

export const RangeAnswer = {
  header: { no: 1, kind: Header as typeof Header },
  kvs: { no: 2, kind: KeyValue as typeof KeyValue, repeated: true },
  more: { no: 3, kind: 'bool' },
  count: { no: 4, kind: 'int' },
} as const;

export const PutAnswer = {
  header: { no: 1, kind: Header as typeof Header },
  prevKv: { no: 2, kind: KeyValue as typeof KeyValue },
} as const;

export const DeleteAnswer = {
  header: { no: 1, kind: Header as typeof Header },
  deleted: { no: 2, kind: 'int' },
  prevKvs: { no: 3, kind: KeyValue as typeof KeyValue, repeated: true },
} as const;

export interface TxnInit {
  readonly compare?: readonly MessageInit<typeof Compare>[];
  readonly success?: readonly OpInit[];
  readonly failure?: readonly OpInit[];
}
export interface OpInit {
  readonly range?: MessageInit<typeof RangeRequest>;
  readonly put?: MessageInit<typeof PutRequest>;
  readonly delete?: MessageInit<typeof DeleteRangeRequest>;
  readonly txn?: TxnInit;
}
export interface TxnAnswer {
  readonly header: Message<typeof Header> | undefined;
  readonly succeeded: boolean;
  readonly responses: readonly OpAnswer[];
}
export interface OpAnswer {
  readonly range?: Message<typeof RangeAnswer> | undefined;
  readonly put?: Message<typeof PutAnswer> | undefined;
  readonly delete?: Message<typeof DeleteAnswer> | undefined;
  readonly txn?: TxnAnswer | undefined;
}

type Mutable<S> = { -readonly [N in keyof S]: S[N] };

const OpSchema: Mutable<Schema> = {
  range: { no: 1, kind: RangeRequest, oneof: 'request' },
  put: { no: 2, kind: PutRequest, oneof: 'request' },
  delete: { no: 3, kind: DeleteRangeRequest, oneof: 'request' },
};
const TxnSchema: Schema = {
  compare: { no: 1, kind: Compare, repeated: true },
  success: { no: 2, kind: OpSchema, repeated: true },
  failure: { no: 3, kind: OpSchema, repeated: true },
};
OpSchema['txn'] = { no: 4, kind: TxnSchema, oneof: 'request' };

const OpAnswerSchema: Mutable<Schema> = {
  range: { no: 1, kind: RangeAnswer, oneof: 'response' },
  put: { no: 2, kind: PutAnswer, oneof: 'response' },
  delete: { no: 3, kind: DeleteAnswer, oneof: 'response' },
};
const TxnAnswerSchema: Schema = {
  header: { no: 1, kind: Header },
  succeeded: { no: 2, kind: 'bool' },
  responses: { no: 3, kind: OpAnswerSchema, repeated: true },
};
OpAnswerSchema['txn'] = { no: 4, kind: TxnAnswerSchema, oneof: 'response' };

export function encodeTxn(txn: TxnInit): Buffer {
  return encode(TxnSchema, txn as MessageInit<Schema>);
}

export function decodeTxnAnswer(bytes: Buffer): TxnAnswer | undefined {
  return decode(TxnAnswerSchema, bytes) as unknown as TxnAnswer | undefined;
}
