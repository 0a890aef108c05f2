// The configuration that flags alone make, as the server itself would read them: no environment, no file, no address of the machine.

import { loadConfig } from '../config/load.ts';
import type { ServerConfig } from '../config/server-config.ts';

/** Throws when these flags end a start. */
export async function configOf(...flags: readonly string[]): Promise<ServerConfig> {
  const loaded = await loadConfig({
    argv: ['keelson', ...flags],
    env: {},
    readFile: () => '',
    defaultHost: () => null,
    nodeVersion: 'test',
    platform: 'linux',
    arch: 'x64',
  });
  if (loaded.kind === 'exit') throw new Error(`${loaded.stderr}${JSON.stringify(loaded.notices.list)}`);
  return loaded.config;
}
