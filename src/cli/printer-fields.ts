// The fields format: one "Name" : value a line, texts quoted as Go quotes them. With --hex, ids are hexadecimal.

import { goQuote } from '../config/go-value.ts';
import type { ResponseHeader } from '../proto/etcdserverpb.ts';
import type { Message } from '../proto/message.ts';
import type { KeyValue } from '../proto/mvccpb.ts';
import { quoteBytes } from './byte-text.ts';
import type { Output } from './output.ts';
import { alarmNames, eventNames, leaseText, type Printable, type Printer } from './printer.ts';

export function fieldsPrinter(isHex: boolean): Printer {
  const id = (value: bigint): string => value.toString(isHex ? 16 : 10);
  const lease = (value: bigint): string => (isHex ? leaseText(value) : String(value));
  const header = (value: Message<typeof ResponseHeader> | undefined, out: Output): void => {
    out.line(`"ClusterID" : ${id(value?.clusterId ?? 0n)}`);
    out.line(`"MemberID" : ${id(value?.memberId ?? 0n)}`);
    // Only answers about keys carry one.
    if (value !== undefined && value.revision > 0) out.line(`"Revision" : ${value.revision}`);
    out.line(`"RaftTerm" : ${value?.raftTerm ?? 0}`);
  };
  const pair = (prefix: string, kv: Message<typeof KeyValue>, out: Output): void => {
    out.line(`"${prefix}Key" : ${quoteBytes(kv.key)}`);
    out.line(`"${prefix}CreateRevision" : ${kv.createRevision}`);
    out.line(`"${prefix}ModRevision" : ${kv.modRevision}`);
    out.line(`"${prefix}Version" : ${kv.version}`);
    out.line(`"${prefix}Value" : ${quoteBytes(kv.value)}`);
    out.line(`"${prefix}Lease" : ${lease(kv.lease)}`);
  };
  return {
    ...keyPrinter(header, pair),
    ...leasePrinter(header, lease),
    ...endpointPrinter(header),
    memberList: ({ header: head, members }, out) => {
      header(head, out);
      for (const member of members) {
        out.line(`"ID" : ${id(member.id)}`);
        out.line(`"Name" : ${goQuote(member.name)}`);
        for (const url of member.peerUrls) out.line(`"PeerURL" : ${goQuote(url)}`);
        for (const url of member.clientUrls) out.line(`"ClientURL" : ${goQuote(url)}`);
        out.line(`"IsLearner" : ${member.isLearner}`);
        out.line('');
      }
    },
    alarm: ({ header: head, alarms }, out) => {
      header(head, out);
      for (const { memberId, alarm } of alarms) {
        out.line(`"MemberID" : ${id(memberId)}`);
        out.line(`"AlarmType" : ${alarmNames[alarm] ?? alarm}`);
        out.line('');
      }
    },
  };
}

type PrintHeader = (header: Message<typeof ResponseHeader> | undefined, out: Output) => void;
type PrintPair = (prefix: string, kv: Message<typeof KeyValue>, out: Output) => void;

function keyPrinter(header: PrintHeader, pair: PrintPair): Printer {
  const get = ({ response }: Pick<Printable['get'], 'response'>, out: Output): void => {
    header(response.header, out);
    for (const kv of response.kvs) pair('', kv, out);
    out.line(`"More" : ${response.more}`);
    out.line(`"Count" : ${response.count}`);
  };
  const put = (response: Printable['put'], out: Output): void => {
    header(response.header, out);
    if (response.prevKv !== undefined) pair('Prev', response.prevKv, out);
  };
  const del = (response: Printable['del'], out: Output): void => {
    header(response.header, out);
    out.line(`"Deleted" : ${response.deleted}`);
    for (const kv of response.prevKvs) pair('Prev', kv, out);
  };
  return {
    get,
    put,
    del,
    txn: (response, out) => {
      header(response.header, out);
      out.line(`"Succeeded" : ${response.succeeded}`);
      for (const { responseRange, responsePut, responseDeleteRange } of response.responses) {
        if (responseRange !== undefined) get({ response: responseRange }, out);
        else if (responsePut !== undefined) put(responsePut, out);
        else if (responseDeleteRange !== undefined) del(responseDeleteRange, out);
      }
    },
    watch: (response, out) => {
      header(response.header, out);
      for (const { type, kv, prevKv } of response.events) {
        out.line(`"Type" : ${eventNames[type] ?? type}`);
        if (prevKv !== undefined) pair('Prev', prevKv, out);
        if (kv !== undefined) pair('', kv, out);
      }
    },
  };
}

function leasePrinter(header: PrintHeader, lease: (id: bigint) => string): Printer {
  const renewed = (response: Printable['keepAlive'], out: Output): void => {
    header(response.header, out);
    out.line(`"ID" : ${lease(response.id)}`);
    out.line(`"TTL" : ${response.ttl}`);
  };
  return {
    grant: renewed,
    keepAlive: renewed,
    revoke: ({ response }, out) => header(response.header, out),
    timeToLive: ({ response }, out) => {
      renewed(response, out);
      out.line(`"GrantedTTL" : ${response.grantedTtl}`);
      for (const key of response.keys) out.line(`"Key" : ${quoteBytes(key)}`);
    },
    leases: (response, out) => {
      header(response.header, out);
      for (const { id } of response.leases) out.line(`"ID" : ${lease(id)}`);
    },
  };
}

function endpointPrinter(header: PrintHeader): Printer {
  return {
    endpointHealth: (list, out) => {
      for (const { endpoint, isHealthy, took, error } of list) {
        out.line(`"Endpoint" : ${goQuote(endpoint)}`);
        out.line(`"Health" : ${isHealthy}`);
        out.line(`"Took" : ${took}`);
        out.line(`"Error" : ${error}`);
        out.line('');
      }
    },
    endpointStatus: (list, out) => {
      for (const { endpoint, status } of list) {
        header(status.header, out);
        out.line(`"Version" : ${goQuote(status.version)}`);
        out.line(`"StorageVersion" : ${goQuote(status.storageVersion)}`);
        out.line(`"DBSize" : ${status.dbSize}`);
        out.line(`"DBSizeInUse" : ${status.dbSizeInUse}`);
        out.line(`"DBSizeQuota" : ${status.dbSizeQuota}`);
        out.line(`"Leader" : ${status.leader}`);
        out.line(`"IsLearner" : ${status.isLearner}`);
        out.line(`"RaftIndex" : ${status.raftIndex}`);
        out.line(`"RaftTerm" : ${status.raftTerm}`);
        out.line(`"RaftAppliedIndex" : ${status.raftAppliedIndex}`);
        out.line(`"Errors" : [${status.errors.join(' ')}]`);
        out.line(`"Endpoint" : ${goQuote(endpoint)}`);
        out.line(`"DowngradeTargetVersion" : ${goQuote(status.downgradeInfo?.targetVersion ?? '')}`);
        out.line(`"DowngradeEnabled" : ${status.downgradeInfo?.enabled ?? false}`);
        out.line('');
      }
    },
    endpointHashKv: (list, out) => {
      for (const { endpoint, hash } of list) {
        header(hash.header, out);
        out.line(`"Endpoint" : ${goQuote(endpoint)}`);
        out.line(`"Hash" : ${hash.hash}`);
        out.line(`"HashRevision" : ${hash.hashRevision}`);
        out.line('');
      }
    },
  };
}
