// Requests of etcd's v2 API in the log: an etcd 3.5 wrote two kinds of them, its own publication and the cluster's version, and they
// stay there when it becomes a 3.6. Here they become the requests that 3.6 makes of them (v2ToV3Request); 3.7 has lost that
// and panics.
//
//   field  1   2       3     4    5 (varint)  6        ... (etcdserverpb.Request, proto2: every field is written, even if empty)
//          ID  method  path  val  dir         prevVal
//
// An InternalRaftRequest has no varint but its ID, so that field 5 tells the two apart.

import { ClusterMemberAttrSetRequest, ClusterVersionSetRequest } from './etcdserverpb.ts';
import { encodeInternalRequest, RequestField } from './internal-request.ts';
import { decode, encode, type MessageInit, type Schema } from './message.ts';

const V2Request = {
  method: { no: 2, kind: 'string' },
  path: { no: 3, kind: 'string' },
  val: { no: 4, kind: 'string' },
} as const;

const attributesPath = /^\/0\/members\/([0-9a-fA-F]{1,16})\/attributes$/;
const versionPath = '/0/version';

/** The same as an entry of today; null: it is of another kind, which only data of the v2 API had. */
export function withoutV2(entry: Buffer): Buffer | null {
  const request = decode(V2Request, entry);
  if (request === undefined || request.method !== 'PUT') return null;
  const { path, val } = request;
  if (path === versionPath) return asEntry(RequestField.clusterVersionSet, ClusterVersionSetRequest, { ver: val });
  const id = attributesPath.exec(path)?.[1];
  const memberAttributes = attributesIn(val);
  if (id === undefined || memberAttributes === null) return null;
  const attributes = { memberId: BigInt(`0x${id}`), memberAttributes };
  return asEntry(RequestField.clusterMemberAttrSet, ClusterMemberAttrSetRequest, attributes);
}

/** Its id is of no use: who waits for it is another program. */
function asEntry<S extends Schema>(field: RequestField, schema: S, init: MessageInit<S>): Buffer {
  const message = encode(schema, init);
  return encodeInternalRequest(field, message, 0, message.length, 0, 0);
}

function attributesIn(text: string): { readonly name: string; readonly clientUrls: readonly string[] } | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
  if (typeof value !== 'object' || value === null) return null;
  const { name = '', clientURLs = [] } = value as { readonly name?: unknown; readonly clientURLs?: unknown };
  if (typeof name !== 'string' || !Array.isArray(clientURLs)) return null;
  return clientURLs.every((url) => typeof url === 'string') ? { name, clientUrls: clientURLs } : null;
}
