// What the headers of a request decide about its call: method, timeout, compression, or the answer that refuses it. Worked
// out once for each distinct header block: http2's block cache keeps it in RequestHead.application.
//
// The checks, their order, codes and texts are grpc-go's (operateHeaders, handleStream), which etcd has.

import type { RequestHead } from '../http2/request-head.ts';
import { decodeBinaryHeader, illegalBase64At } from './metadata.ts';
import type { MethodEntry, Router } from './router.ts';
import type { Status } from './status.ts';
import { StatusCode } from './status.ts';
import { parseTimeout } from './timeout.ts';

/** The refusal of a request: an HTTP status with gRPC trailers, as a trailers-only answer. */
export interface Rejection {
  readonly httpStatus: number;
  readonly status: Status;
}

export interface CallPlan {
  /** Not a gRPC request: for the HTTP handler. Then nothing else here counts. */
  readonly http: boolean;
  readonly rejection: Rejection | null;
  readonly method: MethodEntry | null;
  /** Infinity without a deadline. */
  readonly timeoutMs: number;
  readonly gzip: boolean;
  /** Of the answer: the request's subtype comes back. */
  readonly contentType: string;
  /** What the gate is asked with, 0 for nothing. */
  readonly demands: number;
}

/** Stands before the handlers of all calls, as grpc-go's interceptors. */
export interface CallGate {
  /** What a call demands by its metadata (the first value of a name), as bits: asked once for each distinct header block. */
  demandsOf(metadata: (name: string) => string | undefined): number;
  /** Why a call with these demands may not begin, or go on, now; null when it may. Not asked without demands. */
  refusal(demands: number): Status | null;
  /** Why no call of this method may begin now, whatever it demands; null when it may. Asked first, and for every call. Hot. */
  methodRefusal(path: string): Status | null;
}

export const openGate: CallGate = { demandsOf: () => 0, refusal: () => null, methodRefusal: () => null };

const base = 'application/grpc';

/** `application/grpc`, or with `+subtype` or `;parameter` behind it; null when it is not gRPC's. */
function answerType(contentType: string): string | null {
  if (contentType === base) return base;
  if (!contentType.startsWith(base)) return null;
  const separator = contentType[base.length];
  if (separator !== '+' && separator !== ';') return null;
  const subtype = contentType.slice(base.length + 1);
  return subtype === '' ? base : `${base}+${subtype}`;
}

export function planCall(head: RequestHead, router: Router, gate: CallGate, hasHttpHandler: boolean): CallPlan {
  const contentType = answerType(head.contentType);
  const method = router.find(head.path) ?? null;
  // What names gRPC, by its type or by a method, is answered as gRPC does: a mistaken client shall not be told of a page.
  const http = hasHttpHandler && contentType === null && method === null && !head.contentType.startsWith(base);
  let timeoutMs = Number.POSITIVE_INFINITY;
  let encoding = '';
  let hosts = 0;
  let headerError = '';
  for (const { name, value } of head.fields) {
    if (name === 'grpc-timeout') {
      const parsed = parseTimeout(value);
      if (typeof parsed === 'number') timeoutMs = parsed;
      else headerError = `malformed grpc-timeout: ${parsed}`;
    } else if (name === 'grpc-encoding') {
      encoding = value;
    } else if (name === 'host') {
      hosts += 1;
    } else if (name.endsWith('-bin') && decodeBinaryHeader(value) === null) {
      const text = `illegal base64 data at input byte ${illegalBase64At(value)}`;
      headerError = `malformed binary metadata ${JSON.stringify(value)} in header ${JSON.stringify(name)}: ${text}`;
    }
  }
  const identity = encoding === '' || encoding === 'identity';
  const plan = {
    http,
    method,
    timeoutMs,
    gzip: encoding === 'gzip',
    contentType: contentType ?? base,
    demands: gate.demandsOf((name) => head.value(name)),
  };
  const reject = (httpStatus: number, code: StatusCode, message: string): CallPlan => ({
    ...plan,
    rejection: { httpStatus, status: { code, message } },
  });
  if (http) return { ...plan, rejection: null };
  if (hosts > 1) {
    const counts = `num values of :authority: ${head.authority === '' ? 0 : 1}, num values of host: ${hosts}`;
    return reject(400, StatusCode.internal, `${counts}, both must only have 1 value as per HTTP/2 spec`);
  }
  if (contentType === null) {
    const text = `invalid gRPC request content-type ${JSON.stringify(head.contentType)}`;
    return reject(415, StatusCode.invalidArgument, text);
  }
  if (headerError !== '') return reject(400, StatusCode.internal, headerError);
  if (head.method !== 'POST') {
    const text = `Received a HEADERS frame with :method ${JSON.stringify(head.method)} which should be POST`;
    return reject(405, StatusCode.internal, text);
  }
  if (timeoutMs <= 0) return reject(200, StatusCode.deadlineExceeded, 'context deadline exceeded');
  if (method === null) return reject(200, StatusCode.unimplemented, router.unknownPath(head.path));
  if (!identity && encoding !== 'gzip') {
    const text = `grpc: Decompressor is not installed for grpc-encoding ${JSON.stringify(encoding)}`;
    return reject(200, StatusCode.unimplemented, text);
  }
  return { ...plan, rejection: null };
}
