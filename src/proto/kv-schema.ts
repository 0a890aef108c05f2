// The KV and Watch messages of etcdserverpb (etcd 3.7) as schemas, for who sends the requests and reads the responses: the
// client, the command line, tools. Not for the server, whose hot path reads and writes the same messages in place
// (kv-request.ts, kv-response.ts, watch-response.ts).
//
// A Txn contains Txns: those schemas are recursive, so their types are written out and the inner reference is a getter.

import { ResponseHeader } from './etcdserverpb.ts';
import { Event, KeyValue } from './mvccpb.ts';

export const RangeRequest = {
  key: { no: 1, kind: 'bytes' },
  rangeEnd: { no: 2, kind: 'bytes' },
  limit: { no: 3, kind: 'int' },
  revision: { no: 4, kind: 'int' },
  sortOrder: { no: 5, kind: 'enum' },
  sortTarget: { no: 6, kind: 'enum' },
  serializable: { no: 7, kind: 'bool' },
  keysOnly: { no: 8, kind: 'bool' },
  countOnly: { no: 9, kind: 'bool' },
  minModRevision: { no: 10, kind: 'int' },
  maxModRevision: { no: 11, kind: 'int' },
  minCreateRevision: { no: 12, kind: 'int' },
  maxCreateRevision: { no: 13, kind: 'int' },
} as const;
export const RangeResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  kvs: { no: 2, kind: KeyValue as typeof KeyValue, repeated: true },
  more: { no: 3, kind: 'bool' },
  count: { no: 4, kind: 'int' },
} as const;
/** One chunk: `kvs` continue the chunks before; header, more and count come with the last. */
export const RangeStreamResponse = { rangeResponse: { no: 1, kind: RangeResponse as typeof RangeResponse } } as const;

export const PutRequest = {
  key: { no: 1, kind: 'bytes' },
  value: { no: 2, kind: 'bytes' },
  lease: { no: 3, kind: 'int64' },
  prevKv: { no: 4, kind: 'bool' },
  ignoreValue: { no: 5, kind: 'bool' },
  ignoreLease: { no: 6, kind: 'bool' },
} as const;
export const PutResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  prevKv: { no: 2, kind: KeyValue as typeof KeyValue },
} as const;

export const DeleteRangeRequest = {
  key: { no: 1, kind: 'bytes' },
  rangeEnd: { no: 2, kind: 'bytes' },
  prevKv: { no: 3, kind: 'bool' },
} as const;
export const DeleteRangeResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  deleted: { no: 2, kind: 'int' },
  prevKvs: { no: 3, kind: KeyValue as typeof KeyValue, repeated: true },
} as const;

export const CompareResult = { equal: 0, greater: 1, less: 2, notEqual: 3 } as const;
export const CompareTarget = { version: 0, create: 1, mod: 2, value: 3, lease: 4 } as const;
/** `version` to `lease` are a oneof: the one that `target` names. */
export const Compare = {
  result: { no: 1, kind: 'enum' },
  target: { no: 2, kind: 'enum' },
  key: { no: 3, kind: 'bytes' },
  version: { no: 4, kind: 'int', oneof: 'target' },
  createRevision: { no: 5, kind: 'int', oneof: 'target' },
  modRevision: { no: 6, kind: 'int', oneof: 'target' },
  value: { no: 7, kind: 'bytes', oneof: 'target' },
  lease: { no: 8, kind: 'int64', oneof: 'target' },
  rangeEnd: { no: 64, kind: 'bytes' },
} as const;

export type RequestOpSchema = {
  readonly requestRange: { readonly no: 1; readonly kind: typeof RangeRequest; readonly oneof: 'request' };
  readonly requestPut: { readonly no: 2; readonly kind: typeof PutRequest; readonly oneof: 'request' };
  readonly requestDeleteRange: { readonly no: 3; readonly kind: typeof DeleteRangeRequest; readonly oneof: 'request' };
  readonly requestTxn: { readonly no: 4; readonly kind: TxnRequestSchema; readonly oneof: 'request' };
};
export type TxnRequestSchema = {
  readonly compare: { readonly no: 1; readonly kind: typeof Compare; readonly repeated: true };
  readonly success: { readonly no: 2; readonly kind: RequestOpSchema; readonly repeated: true };
  readonly failure: { readonly no: 3; readonly kind: RequestOpSchema; readonly repeated: true };
};
export const RequestOp: RequestOpSchema = {
  requestRange: { no: 1, kind: RangeRequest, oneof: 'request' },
  requestPut: { no: 2, kind: PutRequest, oneof: 'request' },
  requestDeleteRange: { no: 3, kind: DeleteRangeRequest, oneof: 'request' },
  requestTxn: {
    no: 4,
    oneof: 'request',
    get kind(): TxnRequestSchema {
      return TxnRequest;
    },
  },
};
export const TxnRequest: TxnRequestSchema = {
  compare: { no: 1, kind: Compare, repeated: true },
  success: { no: 2, kind: RequestOp, repeated: true },
  failure: { no: 3, kind: RequestOp, repeated: true },
};

export type ResponseOpSchema = {
  readonly responseRange: { readonly no: 1; readonly kind: typeof RangeResponse };
  readonly responsePut: { readonly no: 2; readonly kind: typeof PutResponse };
  readonly responseDeleteRange: { readonly no: 3; readonly kind: typeof DeleteRangeResponse };
  readonly responseTxn: { readonly no: 4; readonly kind: TxnResponseSchema };
};
export type TxnResponseSchema = {
  readonly header: { readonly no: 1; readonly kind: typeof ResponseHeader };
  readonly succeeded: { readonly no: 2; readonly kind: 'bool' };
  readonly responses: { readonly no: 3; readonly kind: ResponseOpSchema; readonly repeated: true };
};
/** A oneof: one member is set. */
export const ResponseOp: ResponseOpSchema = {
  responseRange: { no: 1, kind: RangeResponse },
  responsePut: { no: 2, kind: PutResponse },
  responseDeleteRange: { no: 3, kind: DeleteRangeResponse },
  responseTxn: {
    no: 4,
    get kind(): TxnResponseSchema {
      return TxnResponse;
    },
  },
};
export const TxnResponse: TxnResponseSchema = {
  header: { no: 1, kind: ResponseHeader },
  succeeded: { no: 2, kind: 'bool' },
  responses: { no: 3, kind: ResponseOp, repeated: true },
};

/** `watchId` is -1 for progress that concerns every watch of the stream. */
export const WatchResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  watchId: { no: 2, kind: 'int' },
  created: { no: 3, kind: 'bool' },
  canceled: { no: 4, kind: 'bool' },
  compactRevision: { no: 5, kind: 'int' },
  cancelReason: { no: 6, kind: 'string' },
  fragment: { no: 7, kind: 'bool' },
  events: { no: 11, kind: Event as typeof Event, repeated: true },
} as const;
