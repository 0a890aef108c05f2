// Ports for processes that a test starts.

import { createServer } from 'node:net';

const firstPort = 11_000;
const portCount = 20_000;

/**
 * Loopback ports that nobody listens on, below the ephemeral range: there, any outgoing connection may take a port before the
 * process that it is meant for binds it, and a client that redials a dead server would connect to itself (TCP simultaneous open).
 */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  for (let tries = 0; ports.size < count; tries++) {
    if (tries === 1000) throw new Error(`no free loopback port from ${firstPort} to ${firstPort + portCount}`);
    const port = firstPort + Math.floor(Math.random() * portCount);
    if (await isFree(port)) ports.add(port);
  }
  return [...ports];
}

export async function freePort(): Promise<number> {
  return (await freePorts(1))[0]!;
}

function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
