// gRPC calls whose headers and bytes no gRPC client would let through, over node:http2; and bare sockets for what is not even that.

import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';

export interface RawAnswer {
  readonly httpStatus: number;
  /** -1 when there was none: the stream was reset. */
  readonly grpcStatus: number;
  readonly grpcMessage: string;
  readonly body: Buffer;
}

/** A length-prefixed gRPC message; `flag` 1 says compressed. */
export function frameMessage(message: Buffer, flag = 0): Buffer {
  const frame = Buffer.alloc(5 + message.length);
  frame[0] = flag;
  frame.writeUInt32BE(message.length, 1);
  message.copy(frame, 5);
  return frame;
}

/** One call on a connection of its own: `body` is sent as it is. */
export async function rawCall(
  address: string,
  path: string,
  body: Buffer,
  headers: http2.OutgoingHttpHeaders = {},
): Promise<RawAnswer> {
  const session = http2.connect(`http://${address}`);
  // A refused connection shows as an error of the stream too.
  session.on('error', () => {});
  try {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    const chunks: Buffer[] = [];
    let fields: Record<string, unknown> = {};
    stream.on('response', (received) => {
      fields = { ...fields, ...received };
    });
    stream.on('trailers', (received) => {
      fields = { ...fields, ...received };
    });
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    // A reset is an answer here: grpcStatus stays -1.
    stream.on('error', () => {});
    stream.end(body);
    await new Promise((resolve) => stream.on('close', resolve));
    const text = fields['grpc-status'];
    return {
      httpStatus: Number(fields[':status'] ?? -1),
      grpcStatus: text === undefined ? -1 : Number(text),
      grpcMessage: decodeURIComponent(String(fields['grpc-message'] ?? '')),
      body: Buffer.concat(chunks),
    };
  } finally {
    session.destroy();
  }
}

export function splitAddress(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(':');
  return { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
}

/** A socket on which errors mean nothing: the server may cut it at any time. */
export async function openSocket(address: string): Promise<net.Socket> {
  const socket = net.connect(splitAddress(address));
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}
