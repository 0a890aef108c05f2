// How answers leave: a response is its header (field 1) followed by a body that the store or the applier has encoded.

import type { Applier } from '../apply/applier.ts';
import type { ByteWriter } from '../base/byte-writer.ts';
import type { ServerCall } from '../grpc/call.ts';
import type { Status } from '../grpc/status.ts';
import { decode, encode, type MessageInit, type Schema } from '../proto/message.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import type { Waiter } from '../server/pending.ts';
import { type ResponseHeaderEncoder, responseHeaderBytesMax } from '../server/response-header.ts';

/** An answer being written; reused, so that answering makes no object. */
class Answer {
  header!: ResponseHeaderEncoder;
  revision = 0;
  body!: ByteWriter;
}
const answer = new Answer();

function writeAnswer(out: Buffer, offset: number, { header, revision, body }: Answer): number {
  const bodyStart = header.write(out, offset, revision);
  return bodyStart + body.bytes.copy(out, bodyStart, 0, body.length);
}

/** Answers a unary call with the header and `body`. */
export function respondWithBody(
  call: ServerCall,
  header: ResponseHeaderEncoder,
  revision: number,
  body: ByteWriter,
): void {
  answer.header = header;
  answer.revision = revision;
  answer.body = body;
  call.respondWith(responseHeaderBytesMax + body.length, writeAnswer, answer);
}

export function respondWithMessage<S extends Schema>(call: ServerCall, schema: S, message: MessageInit<S>): void {
  const bytes = encode(schema, message);
  call.respond(bytes, 0, bytes.length);
}

export function failWith(call: ServerCall, error: EtcdError): void {
  call.fail(error as Status);
}

/** As grpc-go answers bytes that are no message of the method's type; its words for a stream are others. */
export function failMalformed(call: ServerCall): void {
  const what =
    call.method.kind === 'unary' ? 'error unmarshalling request' : 'failed to unmarshal the received message';
  call.fail({ code: 13, message: `grpc: ${what}: proto: cannot parse invalid wire-format data` });
}

/** For methods whose request has no fields. False: the bytes are no message at all, and the call has failed. */
export function acceptEmpty(call: ServerCall, message: Buffer, start: number, end: number): boolean {
  if (decode({}, message, start, end) !== undefined) return true;
  failMalformed(call);
  return false;
}

/** Waits for a proposal and answers with what was applied: header and body. */
export class ApplyWaiter implements Waiter {
  private readonly call: ServerCall;
  private readonly header: ResponseHeaderEncoder;
  constructor(call: ServerCall, header: ResponseHeaderEncoder) {
    this.call = call;
    this.header = header;
  }

  proposed(entry: Buffer, start: number, end: number): void {
    this.call.keepRequest(entry, start, end);
  }

  applied(applier: Applier): void {
    if (applier.error !== null) failWith(this.call, applier.error);
    else respondWithBody(this.call, this.header, applier.revision, applier.body);
  }

  failed(error: EtcdError): void {
    failWith(this.call, error);
  }
}
