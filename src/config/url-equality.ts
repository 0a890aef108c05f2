// Whether two lists of peer URLs are the same addresses, as etcd's netutil.URLStringsEqual decides it: by their text, IP addresses
// in whatever spelling; only where that differs by what the names stand for. Asking for names is the caller's: nothing here waits
// by itself.

import { goQuote, type Parsed } from './go-value.ts';
import { isIpAddress, type MemberUrl, splitHostPort, urlTexts } from './member-url.ts';

/** "address:port" of a URL's "host:port". */
export type ResolveUrl = (url: MemberUrl) => Promise<Parsed<string>>;

/** Null: equal. Otherwise why not. */
export async function urlsDiffer(
  a: readonly MemberUrl[],
  b: readonly MemberUrl[],
  resolve: ResolveUrl,
): Promise<string | null> {
  const lengths = lengthsDiffer(a, b);
  if (lengths !== null) return lengths;
  if (areEqualAsWritten(a, b)) return null;
  const resolvedA = await resolveAll(a, resolve);
  if (!resolvedA.ok) return resolvedA.error;
  const resolvedB = await resolveAll(b, resolve);
  if (!resolvedB.ok) return resolvedB.error;
  const sortedB = resolvedB.value.sort(byText);
  for (const [index, one] of resolvedA.value.sort(byText).entries()) {
    const other = sortedB[index]!;
    if (normalized(one) !== normalized(other)) {
      return `resolved urls: ${goQuote(one.text)} != ${goQuote(other.text)}`;
    }
  }
  return null;
}

/** Without asking anybody for a name. */
export function areEqualAsWritten(a: readonly MemberUrl[], b: readonly MemberUrl[]): boolean {
  if (a.length !== b.length) return false;
  const sortedB = [...b].sort(byText);
  return [...a].sort(byText).every((url, index) => normalized(url) === normalized(sortedB[index]!));
}

function lengthsDiffer(a: readonly MemberUrl[], b: readonly MemberUrl[]): string | null {
  if (a.length === b.length) return null;
  const list = (urls: readonly MemberUrl[]): string => `len([${urlTexts(urls).map(goQuote).join(' ')}])`;
  return `${list(a)} != ${list(b)}`;
}

async function resolveAll(urls: readonly MemberUrl[], resolve: ResolveUrl): Promise<Parsed<MemberUrl[]>> {
  const resolved: MemberUrl[] = [];
  for (const url of urls) {
    if (url.socketPath !== '' || url.host === 'localhost') {
      resolved.push(url);
      continue;
    }
    const address = await resolve(url);
    if (!address.ok) return { ok: false, error: `failed to resolve ${goQuote(url.text)} (${address.error})` };
    const found = { ...url, authority: address.value };
    resolved.push({ ...found, text: normalized(found) });
  }
  return { ok: true, value: resolved };
}

/** One text for all spellings of an IP address. */
function normalized(url: MemberUrl): string {
  if (url.socketPath !== '') return `${url.scheme}://${url.socketPath}`;
  const split = splitHostPort(url.authority);
  if (!split.ok || !isIpAddress(split.value.host)) return url.text;
  const { host, port } = split.value;
  const address = host.includes(':') ? new URL(`http://[${host}]/`).hostname : host;
  return `${url.scheme}://${address}:${port}`;
}

function byText(a: MemberUrl, b: MemberUrl): number {
  return a.text < b.text ? -1 : a.text > b.text ? 1 : 0;
}
