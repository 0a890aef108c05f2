// The protobuf format: the response's bytes, without a newline. Of lease answers etcdctl writes the header alone (its Go struct
// embeds it, and so counts as that message); scripts that read it know.

import {
  AlarmResponse,
  DowngradeResponse,
  HeaderOnlyResponse,
  MemberAddResponse,
  MembersResponse,
  ResponseHeader,
} from '../proto/etcdserverpb.ts';
import { DeleteRangeResponse, PutResponse, RangeResponse, TxnResponse, WatchResponse } from '../proto/kv-schema.ts';
import { encode, type Message } from '../proto/message.ts';
import type { Output } from './output.ts';
import type { Printer } from './printer.ts';

function headerOnly({ header }: { readonly header: Message<typeof ResponseHeader> | undefined }, out: Output): void {
  out.bytes(encode(ResponseHeader, header ?? {}));
}

export const protobufPrinter: Printer = {
  get: ({ response }, out) => out.bytes(encode(RangeResponse, response)),
  put: (response, out) => out.bytes(encode(PutResponse, response)),
  del: (response, out) => out.bytes(encode(DeleteRangeResponse, response)),
  txn: (response, out) => out.bytes(encode(TxnResponse, response)),
  // Without the id, which means nothing outside of the stream, and without the reason, as etcdctl.
  watch: ({ header, events, compactRevision, canceled }, out) =>
    out.bytes(encode(WatchResponse, { header, events, compactRevision, canceled })),
  grant: headerOnly,
  keepAlive: headerOnly,
  timeToLive: ({ response }, out) => headerOnly(response, out),
  leases: headerOnly,
  revoke: ({ response }, out) => out.bytes(encode(HeaderOnlyResponse, response)),
  memberList: (response, out) => out.bytes(encode(MembersResponse, response)),
  memberAdd: ({ response }, out) => out.bytes(encode(MemberAddResponse, response)),
  memberChange: ({ response }, out) => out.bytes(encode(MembersResponse, response)),
  alarm: (response, out) => out.bytes(encode(AlarmResponse, response)),
  moveLeader: ({ response }, out) => out.bytes(encode(HeaderOnlyResponse, response)),
  downgrade: ({ response }, out) => out.bytes(encode(DowngradeResponse, response)),
};
