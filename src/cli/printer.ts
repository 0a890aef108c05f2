// What keelsonctl prints, and in which formats: simple (for people), json, fields, table (some answers only) and protobuf. A
// printer is a function a kind of answer; a format that has none for it refuses. Bytes equal those of etcdctl 3.7: its quirks
// (a lease's protobuf is its header alone, a Txn's JSON wraps each response in "Response") are kept, because scripts read them.

import type {
  AlarmResponse,
  DowngradeResponse,
  HashKVResponse,
  HeaderOnlyResponse,
  LeaseGrantResponse,
  LeaseKeepAliveResponse,
  LeaseLeasesResponse,
  LeaseTimeToLiveResponse,
  MemberAddResponse,
  MembersResponse,
  StatusResponse,
} from '../proto/etcdserverpb.ts';
import type {
  DeleteRangeResponse,
  PutResponse,
  RangeResponse,
  TxnResponseSchema,
  WatchResponse,
} from '../proto/kv-schema.ts';
import type { Message } from '../proto/message.ts';
import { ExitCode, ExitError } from './exit.ts';
import type { Output } from './output.ts';

export interface EndpointHealth {
  readonly endpoint: string;
  readonly isHealthy: boolean;
  /** As Go prints a duration. */
  readonly took: string;
  readonly error: string;
}
export interface EndpointStatus {
  readonly endpoint: string;
  readonly status: Message<typeof StatusResponse>;
}
export interface EndpointHash {
  readonly endpoint: string;
  readonly hash: Message<typeof HashKVResponse>;
}

export interface MemberAddition {
  /** What the new member is to be started with. */
  readonly name: string;
  readonly peerUrls: string;
  readonly response: Message<typeof MemberAddResponse>;
}
export interface MemberChange {
  readonly id: bigint;
  readonly change: 'removed from' | 'updated in' | 'promoted in';
  readonly response: Message<typeof MembersResponse>;
}

/** The answers, by the name of the printer's function. */
export interface Printable {
  readonly get: { readonly response: Message<typeof RangeResponse>; readonly valuesOnly: boolean };
  readonly put: Message<typeof PutResponse>;
  readonly del: Message<typeof DeleteRangeResponse>;
  readonly txn: Message<TxnResponseSchema>;
  readonly watch: Message<typeof WatchResponse>;
  readonly grant: Message<typeof LeaseGrantResponse>;
  readonly revoke: { readonly id: bigint; readonly response: Message<typeof HeaderOnlyResponse> };
  readonly keepAlive: Message<typeof LeaseKeepAliveResponse>;
  readonly timeToLive: { readonly response: Message<typeof LeaseTimeToLiveResponse>; readonly withKeys: boolean };
  readonly leases: Message<typeof LeaseLeasesResponse>;
  readonly memberList: Message<typeof MembersResponse>;
  readonly memberAdd: MemberAddition;
  readonly memberChange: MemberChange;
  readonly alarm: Message<typeof AlarmResponse>;
  readonly moveLeader: {
    readonly leader: bigint;
    readonly target: bigint;
    readonly response: Message<typeof HeaderOnlyResponse>;
  };
  /** `action`: validate, enable or cancel. */
  readonly downgrade: { readonly action: string; readonly response: Message<typeof DowngradeResponse> };
  readonly endpointHealth: readonly EndpointHealth[];
  readonly endpointStatus: readonly EndpointStatus[];
  readonly endpointHashKv: readonly EndpointHash[];
}

export type Printer = { readonly [K in keyof Printable]?: (value: Printable[K], out: Output) => void };

export const FORMATS = ['fields', 'json', 'protobuf', 'simple', 'table'] as const;
export type Format = (typeof FORMATS)[number];

/** Null for a format that does not exist. Loads the one that is asked for. */
export async function loadPrinter(format: string, isHex: boolean): Promise<Printer | null> {
  switch (format) {
    case 'simple':
      return (await import('./printer-simple.ts')).simplePrinter(isHex);
    case 'json':
      return (await import('./printer-json.ts')).jsonPrinter(isHex);
    case 'fields':
      return (await import('./printer-fields.ts')).fieldsPrinter(isHex);
    case 'table':
      return (await import('./printer-table.ts')).tablePrinter;
    case 'protobuf':
      return (await import('./printer-protobuf.ts')).protobufPrinter;
    default:
      return null;
  }
}

export function printWith<K extends keyof Printable>(
  printer: Printer,
  format: string,
  kind: K,
  value: Printable[K],
  out: Output,
): void {
  const print: ((value: Printable[K], out: Output) => void) | undefined = printer[kind];
  if (print === undefined) throw new ExitError(ExitCode.badFeature, `${format} not supported as output format`);
  print(value, out);
}

export const alarmNames: readonly string[] = ['NONE', 'NOSPACE', 'CORRUPT'];
export const eventNames: readonly string[] = ['PUT', 'DELETE'];

/** %016x of an int64. */
export function leaseText(id: bigint): string {
  return (id < 0n ? '-' : '') + (id < 0n ? -id : id).toString(16).padStart(id < 0n ? 15 : 16, '0');
}
