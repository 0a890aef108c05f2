// What the process and the host say of themselves under /proc and by node:os: for the metrics, and for the address that etcd
// advertises when it listens on 0.0.0.0. Everything answers null or -1 where the system has no such file.

import { readdirSync, readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import type { ProcessReader } from '../telemetry/runtime-metrics.ts';

export const processReader: ProcessReader = {
  readText(path: string): string | null {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return null;
    }
  },
  entryCount(path: string): number {
    try {
      return readdirSync(path).length;
    } catch {
      return -1;
    }
  },
};

/** The address of the interface that the IPv4 default route leaves by (etcd's GetDefaultHost), or null. */
export function defaultHost(): string | null {
  const routes = (processReader.readText('/proc/net/route') ?? '').split('\n').slice(1);
  for (const route of routes) {
    const [name = '', destination, , flags = '0', , , , mask] = route.split('\t');
    const isUp = (Number.parseInt(flags, 16) & 1) === 1;
    if (destination !== '00000000' || mask !== '00000000' || !isUp) continue;
    const address = networkInterfaces()[name]?.find((entry) => entry.family === 'IPv4');
    if (address !== undefined) return address.address;
  }
  return null;
}
