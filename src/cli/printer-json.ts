// The JSON format: what Go's encoding/json makes of clientv3's responses. Ids are numbers beyond JavaScript's; --hex turns the
// ids of membership answers alone into hexadecimal strings, as in etcdctl.

import type { ResponseHeader } from '../proto/etcdserverpb.ts';
import type { TxnResponseSchema } from '../proto/kv-schema.ts';
import type { Message } from '../proto/message.ts';
import type { KeyValue } from '../proto/mvccpb.ts';
import { type GoJson, goJson, unlessZero } from './go-json.ts';
import type { Output } from './output.ts';
import type { Printable, Printer } from './printer.ts';

type Fields = { readonly [name: string]: GoJson | undefined };

export function jsonPrinter(isHex: boolean): Printer {
  const print = (value: GoJson, out: Output): void => out.line(goJson(value));
  return {
    get: ({ response }, out) => print(range(response), out),
    put: (response, out) => print(put(response), out),
    del: (response, out) => print(deleteRange(response), out),
    txn: (response, out) => print(txn(response), out),
    watch: (response, out) => print(watch(response), out),
    grant: ({ header, id, ttl, error }, out) => print({ ...headerFields(header), ID: id, TTL: ttl, Error: error }, out),
    revoke: ({ response }, out) => print({ header: headerOf(response.header) }, out),
    keepAlive: ({ header, id, ttl }, out) => print({ ...headerFields(header), ID: id, TTL: ttl }, out),
    timeToLive: ({ response: { header, id, ttl, grantedTtl, keys } }, out) => {
      const listed = keys.length === 0 ? null : keys;
      print({ ...headerFields(header), id, ttl, 'granted-ttl': grantedTtl, keys: listed }, out);
    },
    leases: ({ header, leases }, out) =>
      print({ ...headerFields(header), leases: leases.map(({ id }): GoJson => ({ id })) }, out),
    memberList: (response, out) => print(members(response, isHex), out),
    memberAdd: ({ response }, out) => print(memberAdd(response, isHex), out),
    memberChange: ({ response }, out) => print(members(response, isHex), out),
    alarm: ({ header, alarms }, out) => {
      const listed = alarms.map(
        ({ memberId, alarm }): GoJson => ({ memberID: unlessZero(memberId), alarm: unlessZero(alarm) }),
      );
      print({ header: headerOf(header), alarms: unlessZero(listed) }, out);
    },
    moveLeader: ({ response }, out) => print({ header: headerOf(response.header) }, out),
    downgrade: ({ response: { header, version } }, out) =>
      print({ header: headerOf(header), version: unlessZero(version) }, out),
    endpointHealth: (list, out) =>
      print(
        orNull(
          list.map(
            ({ endpoint, isHealthy, took, error }): GoJson => ({
              endpoint,
              health: isHealthy,
              took,
              error: unlessZero(error),
            }),
          ),
        ),
        out,
      ),
    endpointStatus: (list, out) =>
      print(orNull(list.map((each): GoJson => ({ Endpoint: each.endpoint, Status: status(each.status) }))), out),
    endpointHashKv: (list, out) =>
      print(orNull(list.map((each): GoJson => ({ Endpoint: each.endpoint, HashKV: hashKv(each.hash) }))), out),
  };
}

/** A nil slice of Go. */
function orNull(list: readonly GoJson[]): GoJson {
  return list.length === 0 ? null : list;
}

function headerFields(header: Message<typeof ResponseHeader> | undefined): Fields {
  return {
    cluster_id: unlessZero(header?.clusterId),
    member_id: unlessZero(header?.memberId),
    revision: unlessZero(header?.revision),
    raft_term: unlessZero(header?.raftTerm),
  };
}

function headerOf(header: Message<typeof ResponseHeader> | undefined): GoJson | undefined {
  return header === undefined ? undefined : headerFields(header);
}

function pair(kv: Message<typeof KeyValue> | undefined): GoJson | undefined {
  if (kv === undefined) return undefined;
  return {
    key: unlessZero(kv.key),
    create_revision: unlessZero(kv.createRevision),
    mod_revision: unlessZero(kv.modRevision),
    version: unlessZero(kv.version),
    value: unlessZero(kv.value),
    lease: unlessZero(kv.lease),
  };
}

function pairs(kvs: readonly Message<typeof KeyValue>[]): GoJson | undefined {
  return unlessZero(kvs.map((kv) => pair(kv)!));
}

function range({ header, kvs, more, count }: Printable['get']['response']): GoJson {
  return { header: headerOf(header), kvs: pairs(kvs), more: unlessZero(more), count: unlessZero(count) };
}

function put({ header, prevKv }: Printable['put']): GoJson {
  return { header: headerOf(header), prev_kv: pair(prevKv) };
}

function deleteRange({ header, deleted, prevKvs }: Printable['del']): GoJson {
  return { header: headerOf(header), deleted: unlessZero(deleted), prev_kvs: pairs(prevKvs) };
}

function txn({ header, succeeded, responses }: Message<TxnResponseSchema>): GoJson {
  const listed = responses.map((response): GoJson => {
    const { responseRange, responsePut, responseDeleteRange, responseTxn } = response;
    return {
      Response: {
        response_range: responseRange && range(responseRange),
        response_put: responsePut && put(responsePut),
        response_delete_range: responseDeleteRange && deleteRange(responseDeleteRange),
        response_txn: responseTxn && txn(responseTxn),
      },
    };
  });
  return { header: headerOf(header), succeeded: unlessZero(succeeded), responses: unlessZero(listed) };
}

function watch({ header, events, compactRevision, canceled, cancelReason }: Printable['watch']): GoJson {
  const listed = events.map(
    ({ type, kv, prevKv }): GoJson => ({ type: unlessZero(type), kv: pair(kv), prev_kv: pair(prevKv) }),
  );
  return {
    Header: headerFields(header),
    Events: orNull(listed),
    CompactRevision: compactRevision,
    Canceled: canceled,
    Created: false,
    CancelReason: cancelReason,
  };
}

function members({ header, members: list }: Printable['memberList'], isHex: boolean): GoJson {
  const listed = list.map((member) => memberOf(member, isHex));
  return { header: isHex ? hexHeader(header) : headerOf(header), members: isHex ? listed : unlessZero(listed) };
}

function memberAdd({ header, member, members: list }: Printable['memberAdd']['response'], isHex: boolean): GoJson {
  const listed = list.map((each) => memberOf(each, isHex));
  return {
    header: isHex ? hexHeader(header) : headerOf(header),
    member: member && memberOf(member, isHex),
    members: isHex ? listed : unlessZero(listed),
  };
}

function memberOf(member: Printable['memberList']['members'][number], isHex: boolean): GoJson {
  return {
    ID: isHex ? member.id.toString(16) : unlessZero(member.id),
    name: unlessZero(member.name),
    peerURLs: unlessZero(member.peerUrls),
    clientURLs: unlessZero(member.clientUrls),
    isLearner: unlessZero(member.isLearner),
  };
}

function hexHeader(header: Message<typeof ResponseHeader> | undefined): GoJson {
  return {
    cluster_id: (header?.clusterId ?? 0n).toString(16),
    member_id: (header?.memberId ?? 0n).toString(16),
    revision: unlessZero(header?.revision),
    raft_term: unlessZero(header?.raftTerm),
  };
}

function status(response: Printable['endpointStatus'][number]['status']): GoJson {
  const downgrade = response.downgradeInfo;
  return {
    header: headerOf(response.header),
    version: unlessZero(response.version),
    dbSize: unlessZero(response.dbSize),
    leader: unlessZero(response.leader),
    raftIndex: unlessZero(response.raftIndex),
    raftTerm: unlessZero(response.raftTerm),
    raftAppliedIndex: unlessZero(response.raftAppliedIndex),
    errors: unlessZero(response.errors),
    dbSizeInUse: unlessZero(response.dbSizeInUse),
    isLearner: unlessZero(response.isLearner),
    storageVersion: unlessZero(response.storageVersion),
    dbSizeQuota: unlessZero(response.dbSizeQuota),
    downgradeInfo: downgrade && {
      enabled: unlessZero(downgrade.enabled),
      targetVersion: unlessZero(downgrade.targetVersion),
    },
  };
}

function hashKv(response: Printable['endpointHashKv'][number]['hash']): GoJson {
  return {
    header: headerOf(response.header),
    hash: unlessZero(response.hash),
    compact_revision: unlessZero(response.compactRevision),
    hash_revision: unlessZero(response.hashRevision),
  };
}
