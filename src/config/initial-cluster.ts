// --initial-cluster: name=url,name=url,... as etcd's types.URLsMap reads and prints it, and the checks that a member makes on it
// before it makes or joins that cluster (server/config). A name may stand several times, once for each of its URLs.

import { goQuote, type Parsed } from './go-value.ts';
import { type MemberUrl, parseMemberUrls, urlTexts } from './member-url.ts';
import { type ResolveUrl, urlsDiffer } from './url-equality.ts';

export type InitialCluster = ReadonlyMap<string, readonly MemberUrl[]>;

export function parseInitialCluster(text: string): Parsed<InitialCluster> {
  const texts = new Map<string, string[]>();
  for (const pair of text.split(',')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const name = equals < 0 ? pair : pair.slice(0, equals);
    const url = equals < 0 ? '' : pair.slice(equals + 1);
    const urls = texts.get(name);
    if (urls === undefined) texts.set(name, [url]);
    else urls.push(url);
  }
  const cluster = new Map<string, readonly MemberUrl[]>();
  for (const [name, urls] of texts) {
    const parsed = parseMemberUrls(urls.join(','));
    if (!parsed.ok) return parsed;
    cluster.set(name, parsed.value);
  }
  return { ok: true, value: cluster };
}

/** Sorted name=url pairs, as etcd logs it. */
export function formatInitialCluster(cluster: InitialCluster): string {
  const pairs: string[] = [];
  for (const [name, urls] of cluster) for (const url of urls) pairs.push(`${name}=${url.text}`);
  return pairs.sort().join(',');
}

/** What a member asks before it makes a new cluster of these (etcd's VerifyBootstrap). The error, or null. */
export async function verifyBootstrap(
  name: string,
  cluster: InitialCluster,
  advertised: readonly MemberUrl[],
  resolve: ResolveUrl,
): Promise<string | null> {
  const own = cluster.get(name);
  if (own === undefined) return localNameMissing(name);
  const reason = await urlsDiffer(advertised, own, resolve);
  if (reason !== null) return advertisedMismatch(name, urlTexts(own), urlTexts(advertised), reason);
  return duplicateUrl(cluster);
}

/** What it asks before it joins the cluster of these (etcd's VerifyJoinExisting): the cluster knows its addresses already. */
export function verifyJoinExisting(name: string, cluster: InitialCluster, discovers: boolean): string | null {
  if (!cluster.has(name)) return localNameMissing(name);
  const duplicate = duplicateUrl(cluster);
  if (duplicate !== null) return duplicate;
  return discovers ? 'discovery URL should not be set when joining existing initial cluster' : null;
}

function localNameMissing(name: string): string {
  return `couldn't find local name ${goQuote(name)} in the initial cluster configuration`;
}

function duplicateUrl(cluster: InitialCluster): string | null {
  return hasDuplicateUrl(cluster) ? `initial cluster ${formatInitialCluster(cluster)} has duplicate url` : null;
}

export function hasDuplicateUrl(cluster: InitialCluster): boolean {
  const texts = [...cluster.values()].flatMap(urlTexts);
  return new Set(texts).size < texts.length;
}

function advertisedMismatch(
  name: string,
  own: readonly string[],
  advertised: readonly string[],
  reason: string,
): string {
  const ownSorted = [...own].sort();
  const advertisedSorted = [...advertised].sort();
  const list = advertisedSorted.join(',');
  const missing = ownSorted.filter((url) => !advertised.includes(url));
  if (missing.length > 0) {
    const pairs = missing.map((url) => `${name}=${url}`).join(',');
    return `--initial-cluster has ${pairs} but missing from --initial-advertise-peer-urls=${list} (${reason})`;
  }
  const extra = advertisedSorted.filter((url) => !own.includes(url));
  const pairs = advertisedSorted.map((url) => `${name}=${url}`).join(',');
  if (extra.length > 0) {
    return `--initial-advertise-peer-urls has ${extra.join(',')} but missing from --initial-cluster=${pairs}`;
  }
  return `failed to resolve ${list} to match --initial-cluster=${pairs} (${reason})`;
}
