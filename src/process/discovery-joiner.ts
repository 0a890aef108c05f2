// Joins a cluster by v3 discovery, for a start that is to do so (server/start-plan.ts).

import type { ServerConfig } from '../config/server-config.ts';
import type { Logger } from '../telemetry/logger.ts';

/** The client is loaded only where it is needed: its library takes a while. */
export function discoveryJoiner(
  { discovery }: ServerConfig,
  logger: Logger,
  readFile: (path: string) => Buffer,
): (memberId: string, own: string) => Promise<string> {
  return async (memberId, own) => {
    const { joinByDiscovery } = await import('../client/discovery.ts');
    const { tls: files, ...options } = discovery!;
    const pem = (path: string): Buffer | undefined => (path === '' ? undefined : readFile(path));
    const tls =
      files === null
        ? null
        : {
            trustedCa: pem(files.caFile),
            certificate: pem(files.certFile),
            key: pem(files.keyFile),
            skipVerify: files.skipVerify,
          };
    return joinByDiscovery({ ...options, tls, logger }, memberId, own);
  };
}
