// --initial-cluster: name=url,name=url,... as etcd's types.URLsMap reads and prints it, and the checks that a member makes on
// it before it bootstraps (server/config VerifyBootstrap). A name may stand several times, once for each of its URLs.

import { goQuote, type Parsed } from './go-value.ts';
import { type MemberUrl, parseMemberUrls, urlTexts } from './member-url.ts';

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

/** What a member asks before it makes a new cluster of these. The error, or null. */
export function verifyBootstrap(
  name: string,
  cluster: InitialCluster,
  advertised: readonly MemberUrl[],
): string | null {
  const own = cluster.get(name);
  if (own === undefined) return `couldn't find local name ${goQuote(name)} in the initial cluster configuration`;
  const mismatch = compareUrls(name, urlTexts(own), urlTexts(advertised));
  if (mismatch !== null) return mismatch;
  const seen = new Set<string>();
  for (const urls of cluster.values()) {
    for (const url of urls) {
      if (seen.has(url.text)) return `initial cluster ${formatInitialCluster(cluster)} has duplicate url`;
      seen.add(url.text);
    }
  }
  return null;
}

/**
 * etcd resolves host names before it compares; here the texts must be equal, so that two spellings of one address are
 * refused with its message instead of waiting up to 30 s for a name server (docs/differences.md).
 */
function compareUrls(name: string, own: readonly string[], advertised: readonly string[]): string | null {
  const ownSorted = [...own].sort();
  const advertisedSorted = [...advertised].sort();
  const reason = firstDifference(advertisedSorted, ownSorted);
  if (reason === null) return null;
  const missing = ownSorted.filter((url) => !advertised.includes(url));
  if (missing.length > 0) {
    const pairs = missing.map((url) => `${name}=${url}`).join(',');
    return `--initial-cluster has ${pairs} but missing from --initial-advertise-peer-urls=${advertisedSorted.join(',')} (${reason})`;
  }
  const extra = advertisedSorted.filter((url) => !own.includes(url));
  const pairs = advertisedSorted.map((url) => `${name}=${url}`).join(',');
  return `--initial-advertise-peer-urls has ${extra.join(',')} but missing from --initial-cluster=${pairs}`;
}

function firstDifference(a: readonly string[], b: readonly string[]): string | null {
  if (a.length !== b.length) return `len([${a.map(goQuote).join(' ')}]) != len([${b.map(goQuote).join(' ')}])`;
  const index = a.findIndex((url, at) => url !== b[at]);
  return index < 0 ? null : `resolved urls: ${goQuote(a[index]!)} != ${goQuote(b[index]!)}`;
}
