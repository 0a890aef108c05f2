// --discovery-srv: the members of a new cluster by DNS. SRV records of _etcd-server-ssl._tcp and _etcd-server._tcp name a host and a
// port each; the one that is this member's advertised address gets its name, the others get numbers, as in etcd's client/pkg/srv and
// embed's GetDNSClusterNames. Names of the others matter to nobody: members are told apart by their addresses.

import type { Parsed } from '../config/go-value.ts';
import { type MemberUrl, urlTexts } from '../config/member-url.ts';
import type { ServerConfig } from '../config/server-config.ts';
import type { Names } from '../io/names.ts';
import type { Logger } from '../telemetry/logger.ts';

const CALLER = 'server/srv-discovery.ts';

/** The cluster in the form of --initial-cluster, or etcd's error. */
export async function clusterBySrv(config: ServerConfig, names: Names, logger: Logger): Promise<Parsed<string>> {
  const suffix = config.discoverySrvName === '' ? '' : `-${config.discoverySrvName}`;
  const found: string[] = [];
  const errors: string[] = [];
  for (const [scheme, base] of [
    ['https', 'etcd-server-ssl'],
    ['http', 'etcd-server'],
  ] as const) {
    const service = `${base}${suffix}`;
    const members = await membersOf(scheme, service, config, names);
    if (members.ok) found.push(...members.value);
    else errors.push(members.error);
    logger.info(CALLER, `get cluster for ${base} SRV`, {
      'service-scheme': scheme,
      'service-name': service,
      'server-name': config.name,
      'discovery-srv': config.discoverySrv,
      'advertise-peer-urls': urlTexts(config.advertisePeerUrls),
      // What was found so far, as etcd logs it.
      'found-cluster': members.ok ? members.value : [],
      ...(members.ok ? {} : { error: members.error }),
    });
  }
  if (errors.length > 0) {
    logger.warn(CALLER, 'failed to resolve during SRV discovery', { error: errors.join('\n') });
    if (found.length === 0) return { ok: false, error: errors.join('\n') };
  }
  for (const node of found) logger.info(CALLER, 'got bootstrap from DNS for etcd-server', { node });
  return { ok: true, value: found.join(',') };
}

/** name=url of each record of a service. */
async function membersOf(
  scheme: 'http' | 'https',
  service: string,
  { name, discoverySrv, advertisePeerUrls }: ServerConfig,
  names: Names,
): Promise<Parsed<string[]>> {
  const fail = (error: unknown): { readonly ok: false; readonly error: string } => {
    const reason = (error as Error).message;
    return { ok: false, error: `error querying DNS SRV records for _${service} ${reason}` };
  };
  const members: string[] = [];
  let unnamed = 0;
  let failure: unknown = null;
  try {
    const own = await ownAddresses(advertisePeerUrls, names);
    for (const { target, port } of await names.services(`_${service}._tcp.${discoverySrv}`)) {
      const host = target.replace(/\.$/, '');
      const url = `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`;
      try {
        const advertised = own.get(`${await names.address(host)} ${port}`);
        const member = advertised === undefined || name === '' ? String(unnamed++) : name;
        if (advertised === undefined || advertised.scheme === scheme) members.push(`${member}=${url}`);
        else {
          failure = new Error(
            `bootstrap at ${url} from DNS for ${service} has scheme mismatch with expected peer ${advertised.text}`,
          );
        }
      } catch (error) {
        failure = error;
      }
    }
  } catch (error) {
    return fail(error);
  }
  return members.length === 0 && failure !== null ? fail(failure) : { ok: true, value: members };
}

/** This member's URLs by address and port. */
async function ownAddresses(urls: readonly MemberUrl[], names: Names): Promise<Map<string, MemberUrl>> {
  const own = new Map<string, MemberUrl>();
  for (const url of urls) own.set(`${await names.address(url.host)} ${url.port}`, url);
  return own;
}
