// The simple format: keys and values on lines of their own, as they are.

import { goQuote } from '../config/go-value.ts';
import type { Message } from '../proto/message.ts';
import type { KeyValue } from '../proto/mvccpb.ts';
import { complain, type Output } from './output.ts';
import { alarmNames, eventNames, leaseText, type MemberAddition, type Printable, type Printer } from './printer.ts';
import { hashRows, memberRows, statusRows } from './printer-rows.ts';

const newline = Buffer.from('\n');

export function simplePrinter(isHex: boolean): Printer {
  const raw = (bytes: Buffer, out: Output): void => {
    if (isHex) out.text(hexText(bytes));
    else out.bytes(bytes);
    out.bytes(newline);
  };
  const pair = (kv: Message<typeof KeyValue>, out: Output, valuesOnly = false): void => {
    if (!valuesOnly) raw(kv.key, out);
    raw(kv.value, out);
  };
  const get = ({ response, valuesOnly }: Printable['get'], out: Output): void => {
    for (const kv of response.kvs) pair(kv, out, valuesOnly);
  };
  const put = ({ prevKv }: Printable['put'], out: Output): void => {
    out.line('OK');
    if (prevKv !== undefined) pair(prevKv, out);
  };
  const del = ({ deleted, prevKvs }: Printable['del'], out: Output): void => {
    out.line(String(deleted));
    for (const kv of prevKvs) pair(kv, out);
  };
  return {
    get,
    put,
    del,
    txn: ({ succeeded, responses }, out) => {
      out.line(succeeded ? 'SUCCESS' : 'FAILURE');
      for (const { responseRange, responsePut, responseDeleteRange } of responses) {
        out.line('');
        if (responseRange !== undefined) get({ response: responseRange, valuesOnly: false }, out);
        else if (responsePut !== undefined) put(responsePut, out);
        else if (responseDeleteRange !== undefined) del(responseDeleteRange, out);
      }
    },
    watch: ({ events }, out) => {
      for (const { type, kv, prevKv } of events) {
        out.line(eventNames[type] ?? String(type));
        if (prevKv !== undefined) pair(prevKv, out);
        if (kv !== undefined) pair(kv, out);
      }
    },
    ...leases,
    ...cluster,
  };
}

const leases: Printer = {
  grant: ({ id, ttl }, out) => out.line(`lease ${leaseText(id)} granted with TTL(${ttl}s)`),
  revoke: ({ id }, out) => out.line(`lease ${leaseText(id)} revoked`),
  keepAlive: ({ id, ttl }, out) => out.line(`lease ${leaseText(id)} keepalived with TTL(${ttl})`),
  timeToLive: ({ response: { id, ttl, grantedTtl, keys }, withKeys }, out) => {
    if (grantedTtl === 0n && ttl === -1n) {
      out.line(`lease ${leaseText(id)} already expired`);
      return;
    }
    out.text(`lease ${leaseText(id)} granted with TTL(${grantedTtl}s), remaining(${ttl}s)`);
    if (withKeys) {
      out.text(', attached keys([');
      keys.forEach((key, index) => {
        if (index > 0) out.text(' ');
        out.bytes(key);
      });
      out.text('])');
    }
    out.bytes(newline);
  },
  leases: (response, out) => {
    out.line(`found ${response.leases.length} leases`);
    for (const { id } of response.leases) out.line(leaseText(id));
  },
};

const cluster: Printer = {
  alarm: ({ alarms }, out) => {
    for (const { memberId, alarm } of alarms) {
      const member = memberId === 0n ? [] : [`memberID:${memberId}`];
      const kind = alarm === 0 ? [] : [`alarm:${alarmNames[alarm] ?? alarm}`];
      out.line([...member, ...kind].join(' '));
    }
  },
  memberList: (response, out) => lines(memberRows(response), out),
  memberAdd,
  memberChange: ({ id, change, response }, out) =>
    out.line(`Member ${paddedId(id)} ${change} cluster ${paddedId(response.header?.clusterId)}`),
  endpointStatus: (list, out) => lines(statusRows(list), out),
  endpointHashKv: (list, out) => lines(hashRows(list), out),
  endpointHealth: (list, out) => {
    for (const { endpoint, error, took } of list) {
      if (error === '') out.line(`${endpoint} is healthy: successfully committed proposal: took = ${took}`);
      else {
        out.flush();
        complain(`${endpoint} is unhealthy: failed to commit proposal: ${error}\n`);
      }
    }
  },
  downgrade: ({ action, response }, out) =>
    out.line(`Downgrade ${action} success, cluster version ${response.version}`),
  moveLeader: ({ leader, target }, out) =>
    out.line(`Leadership transferred from ${leader.toString(16)} to ${target.toString(16)}`),
};

/** Also what the new member is to be started with. */
function memberAdd({ name, peerUrls, response: { header, member, members } }: MemberAddition, out: Output): void {
  const as = member?.isLearner === true ? ' as learner' : '';
  out.line(`Member ${paddedId(member?.id)} added${as} to cluster ${paddedId(header?.clusterId)}`);
  const cluster = members.flatMap((each) =>
    each.peerUrls.map((url) => `${each.id === member?.id ? name : each.name}=${url}`),
  );
  out.line('');
  out.line(`ETCD_NAME=${goQuote(name)}`);
  out.line(`ETCD_INITIAL_CLUSTER=${goQuote(cluster.join(','))}`);
  out.line(`ETCD_INITIAL_ADVERTISE_PEER_URLS=${goQuote(peerUrls)}`);
  out.line('ETCD_INITIAL_CLUSTER_STATE="existing"');
}

/** %16x of a uint64. */
function paddedId(id = 0n): string {
  return id.toString(16).padStart(16);
}

function lines(rows: readonly (readonly string[])[], out: Output): void {
  for (const row of rows) out.line(row.join(', '));
}

/** \x before each byte. */
function hexText(bytes: Buffer): string {
  return bytes.toString('hex').replace(/../g, '\\x$&');
}
