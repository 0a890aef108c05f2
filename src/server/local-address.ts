// The feature gate SetMemberLocalAddr: connections to peers come from an address that this member advertises, so that peers on a host with
// several addresses see the one that they know (etcd's InferLocalAddr).

import { isIpAddress, urlTexts } from '../config/member-url.ts';
import type { ServerConfig } from '../config/server-config.ts';
import type { Logger } from '../telemetry/logger.ts';

const CALLER = 'server/local-address.ts';

/** Null: the system's choice. */
export function memberLocalAddress({ features, advertisePeerUrls }: ServerConfig, logger: Logger): string | null {
  if (!features.enabled('SetMemberLocalAddr')) return null;
  const fields = { 'advertise-peer-urls': urlTexts(advertisePeerUrls) };
  logger.info(CALLER, 'searching for a suitable member local address in AdvertisePeerURLs', fields);
  const found = advertisePeerUrls.find(({ host }) => isIpAddress(host) && !isOwnHostOnly(host));
  if (found === undefined) {
    logger.warn(CALLER, 'unable to set a member local address due to lack of suitable local addresses', fields);
    return null;
  }
  logger.info(CALLER, 'setting member local address', { LocalAddr: found.host });
  return found.host;
}

/** Loopback, or no address in particular. */
function isOwnHostOnly(host: string): boolean {
  if (!host.includes(':')) return host.startsWith('127.') || host === '0.0.0.0';
  return ['[::1]', '[::]'].includes(new URL(`http://[${host}]/`).hostname);
}
