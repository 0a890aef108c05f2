// The header blocks of answers. The two of a successful call are kept for each connection, where they shrink to three bytes
// (http2/header-block.ts); those of errors are built when they are needed, and stay out of the dynamic table.

import { grpcLimits } from '../connection-limits.ts';
import { HeaderBlock } from '../http2/header-block.ts';
import type { OutputField } from '../http2/hpack-encoder.ts';
import type { Status } from './status.ts';
import { encodeStatusMessage } from './status-message.ts';

const statusOk: OutputField = { name: ':status', value: '200' };
const contentType: OutputField = { name: 'content-type', value: 'application/grpc', indexed: true };
const grpcStatusOk: OutputField = { name: 'grpc-status', value: '0', indexed: true };

export class ResponseBlocks {
  readonly headers: HeaderBlock = new HeaderBlock([statusOk, contentType]);
  readonly trailers: HeaderBlock = new HeaderBlock([grpcStatusOk]);
}

export function responseHeaders(type: string, gzip: boolean): HeaderBlock {
  const fields: OutputField[] = [statusOk, typeField(type)];
  if (gzip) fields.push({ name: 'grpc-encoding', value: 'gzip' });
  return new HeaderBlock(fields);
}

/** Trailers of a failed call that has sent its headers. */
export function errorTrailers(status: Status): HeaderBlock {
  return new HeaderBlock(statusFields(status));
}

/** Headers and trailers in one, of a call that fails before it sent anything. */
export function trailersOnly(httpStatus: number, type: string, status: Status): HeaderBlock {
  const first = httpStatus === 200 ? statusOk : { name: ':status', value: String(httpStatus) };
  return new HeaderBlock([first, typeField(type), ...statusFields(status)]);
}

function typeField(type: string): OutputField {
  return type === contentType.value ? contentType : { name: 'content-type', value: type };
}

function statusFields(status: Status): OutputField[] {
  const message = encodeStatusMessage(status.message, grpcLimits.statusMessageBytesMax);
  return [
    { name: 'grpc-status', value: String(status.code) },
    { name: 'grpc-message', value: message },
  ];
}
