// grpc.health.v1.Health as etcd registers it: one service, the empty name, serving while this member knows a leader.

import type { ServerCall } from '../grpc/call.ts';
import type { Router } from '../grpc/router.ts';
import { decode, encode } from '../proto/message.ts';
import type { Member } from '../server/member.ts';
import { failMalformed, respondWithMessage } from './answer.ts';

const SERVICE = 'grpc.health.v1.Health';
const NOT_FOUND = 5;

const HealthCheckRequest = { service: { no: 1, kind: 'string' } } as const;
const HealthCheckResponse = { status: { no: 1, kind: 'int' } } as const;
const HealthListResponse = {
  statuses: {
    no: 1,
    kind: { key: { no: 1, kind: 'string' }, value: { no: 2, kind: HealthCheckResponse } },
    repeated: true,
  },
} as const;
const ServingStatus = { serving: 1, notServing: 2, serviceUnknown: 3 } as const;

export function registerHealth(router: Router, member: Member): void {
  const status = (): number => (member.leader === 0n ? ServingStatus.notServing : ServingStatus.serving);
  router.unary(SERVICE, 'Check', (call, message, start, end) => {
    const request = decode(HealthCheckRequest, message, start, end);
    if (request === undefined) failMalformed(call);
    else if (request.service !== '') call.fail({ code: NOT_FOUND, message: 'unknown service' });
    else respondWithMessage(call, HealthCheckResponse, { status: status() });
  });
  router.unary(SERVICE, 'List', (call) => {
    respondWithMessage(call, HealthListResponse, { statuses: [{ key: '', value: { status: status() } }] });
  });
  router.stream(SERVICE, 'Watch', 'server', {
    open: () => {},
    halfClose: () => {},
    message: (call, message, start, end) => {
      const request = decode(HealthCheckRequest, message, start, end);
      if (request === undefined) failMalformed(call);
      else sendStatus(call, request.service === '' ? status() : ServingStatus.serviceUnknown);
    },
  });
}

/** The stream stays open: etcd's status changes only when a member stops serving, which ends the connection. */
function sendStatus(call: ServerCall, status: number): void {
  const bytes = encode(HealthCheckResponse, { status });
  call.send(bytes, 0, bytes.length);
}
