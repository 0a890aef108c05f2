// Keeps a lease alive: one renewal after a third of its time to live, over a stream that is opened again when it breaks. Ends
// when the server says that the lease is gone, or when nothing was heard for as long as the lease lives. Follows clientv3's
// KeepAlive and KeepAliveOnce.

import { clientStreamBackoffMsMax } from '../limits.ts';
import type { LeaseKeepAliveResponse } from '../proto/etcdserverpb.ts';
import type { Message } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import type { DuplexStream, EtcdClient } from './client.ts';
import { rpc } from './rpc.ts';
import { EtcdClientError, StatusCode } from './status.ts';

export type KeepAliveResponse = Message<typeof LeaseKeepAliveResponse>;

/** One renewal. Rejects with "requested lease not found" when the lease is gone. */
export async function keepAliveOnce(client: EtcdClient, id: bigint, deadlineMs?: number): Promise<KeepAliveResponse> {
  for (;;) {
    try {
      const response = await renew(client, await client.duplex(rpc.leaseKeepAlive, { deadlineMs }), id);
      if (response.ttl > 0n) return response;
      throw new EtcdClientError(etcdErrors.leaseNotFound.code, etcdErrors.leaseNotFound.message);
    } catch (error) {
      if (!(error instanceof EtcdClientError) || !mayPass(error)) throw error;
      await delay(clientStreamBackoffMsMax * Math.random());
    }
  }
}

/** Yields each renewal until the lease is gone. */
export async function* keepAlive(client: EtcdClient, id: bigint): AsyncGenerator<KeepAliveResponse, void, undefined> {
  let expiresMs = Date.now() + client.dialTimeoutMs + 1000;
  while (Date.now() < expiresMs) {
    try {
      const response = await keepAliveOnce(client, id, expiresMs);
      yield response;
      const ttlMs = Number(response.ttl) * 1000;
      expiresMs = Date.now() + ttlMs;
      await delay(ttlMs / 3);
    } catch (error) {
      if (error instanceof EtcdClientError) return;
      throw error;
    }
  }
}

/** Sends one request on the stream, takes one response and ends it. */
async function renew(client: EtcdClient, { stream, failure }: DuplexStream, id: bigint): Promise<KeepAliveResponse> {
  try {
    return await new Promise((resolve, reject) => {
      stream.once('data', (bytes: Buffer) => resolve(client.decode(rpc.leaseKeepAlive, bytes)));
      stream.once('end', () => reject(new EtcdClientError(StatusCode.unavailable, 'the keep-alive stream has ended')));
      stream.on('error', (error) => reject(failure(error)));
      stream.write(client.encode(rpc.leaseKeepAlive, { id }));
    });
  } finally {
    stream.end();
    stream.cancel();
  }
}

function mayPass(error: EtcdClientError): boolean {
  return error.code === StatusCode.unavailable || error.code === StatusCode.internal;
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
