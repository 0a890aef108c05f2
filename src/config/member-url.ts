// URLs of members as etcd reads them (client/pkg/types/urls.go over Go's url.Parse): http, https, unix and unixs, with a port
// and without a path. Keeps the text as Go prints it, because ids and comparisons are over that text. Not a general URL
// parser, and no name is ever resolved here.

import { goQuote, type Parsed } from './go-value.ts';

export interface MemberUrl {
  readonly scheme: 'http' | 'https' | 'unix' | 'unixs';
  /** Host with port as written ("[::1]:2379"); for unix what stands before the path. */
  readonly authority: string;
  /** Host without brackets and port; for unix sockets ''. */
  readonly host: string;
  /** 0 when empty: any free port, as Go listens. */
  readonly port: number;
  /** The socket's path for unix and unixs (authority and path together, as etcd binds it), else ''. */
  readonly socketPath: string;
  /** As Go's URL.String() prints it. */
  readonly text: string;
}

/** net.SplitHostPort: host and port, or its error. */
export function splitHostPort(address: string): Parsed<{ readonly host: string; readonly port: string }> {
  const fail = (reason: string): { ok: false; error: string } => ({
    ok: false,
    error: `address ${address}: ${reason}`,
  });
  const colon = address.lastIndexOf(':');
  if (colon < 0) return fail('missing port in address');
  if (address[0] === '[') {
    const end = address.indexOf(']');
    if (end < 0) return fail("missing ']' in address");
    if (end + 1 === address.length) return fail('missing port in address');
    if (end + 1 !== colon)
      return fail(address[end + 1] === ':' ? 'too many colons in address' : 'missing port in address');
    return { ok: true, value: { host: address.slice(1, end), port: address.slice(colon + 1) } };
  }
  const host = address.slice(0, colon);
  if (host.includes(':')) return fail('too many colons in address');
  if (/[[\]]/.test(address)) return fail(`unexpected '${/\[/.test(address) ? '[' : ']'}' in address`);
  return { ok: true, value: { host, port: address.slice(colon + 1) } };
}

/** Parses one URL with etcd's errors. */
export function parseMemberUrl(input: string): Parsed<MemberUrl> {
  const text = input.trim();
  const fail = (reason: string): { ok: false; error: string } => ({
    ok: false,
    error: `parse ${goQuote(text)}: ${reason}`,
  });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: Go refuses exactly these
  if (/[\u0000-\u001f\u007f]/.test(text)) return fail('net/url: invalid control character in URL');
  if (text[0] === ':') return fail('missing protocol scheme');
  const match = /^([A-Za-z][A-Za-z0-9+.-]*):(.*)$/s.exec(text);
  if (match === null && (text.split('/')[0] ?? '').includes(':'))
    return fail('first path segment in URL cannot contain colon');
  const scheme = match?.[1]?.toLowerCase() ?? '';
  const afterScheme = match?.[2] ?? text;
  const hasAuthority = afterScheme.startsWith('//');
  const authorityAndUser = hasAuthority ? /^[^/?#]*/.exec(afterScheme.slice(2))![0] : '';
  const path = /^[^?#]*/.exec(afterScheme.slice(hasAuthority ? 2 + authorityAndUser.length : 0))![0];
  const authority = authorityAndUser.slice(authorityAndUser.lastIndexOf('@') + 1);
  const authorityError = checkAuthority(authority);
  if (authorityError !== null) return fail(authorityError);
  const badEscape = /%(?![0-9a-fA-F]{2}).{0,2}/s.exec(path);
  if (badEscape !== null) return fail(`invalid URL escape ${goQuote(badEscape[0])}`);
  const printed = scheme === '' ? text : `${scheme}:${afterScheme}`;
  if (scheme === 'unix' || scheme === 'unixs') {
    const rooted = path.startsWith('/') ? path : '';
    const socketPath = authority + decodeURIComponent(rooted);
    return { ok: true, value: { scheme, authority, host: '', port: 0, socketPath, text: printed } };
  }
  if (scheme !== 'http' && scheme !== 'https')
    return { ok: false, error: `URL scheme must be http, https, unix, or unixs: ${text}` };
  const split = splitHostPort(authority);
  if (!split.ok) return { ok: false, error: `URL address does not have the form "host:port": ${text}` };
  if (path !== '') return { ok: false, error: `URL must not contain a path: ${text}` };
  const { host, port } = split.value;
  return { ok: true, value: { scheme, authority, host, port: Number(port), socketPath: '', text: printed } };
}

function checkAuthority(authority: string): string | null {
  if (authority[0] === '[') {
    const end = authority.lastIndexOf(']');
    if (end < 0) return "missing ']' in host";
    const after = authority.slice(end + 1);
    return /^(?::\d*)?$/.test(after) ? null : `invalid port ${goQuote(after)} after host`;
  }
  const strange = /[ <>"\\^`{|}]/.exec(authority);
  if (strange !== null) return `invalid character ${goQuote(strange[0])} in host name`;
  const badEscape = /%(?![0-9a-fA-F]{2}).{0,2}/s.exec(authority);
  if (badEscape !== null) return `invalid URL escape ${goQuote(badEscape[0])}`;
  const port = /:.*$/s.exec(authority)?.[0] ?? '';
  return /^(?::\d*)?$/.test(port) ? null : `invalid port ${goQuote(port)} after host`;
}

/** Parses a comma-separated list, sorted by text, as etcd's types.NewURLs. */
export function parseMemberUrls(list: string): Parsed<MemberUrl[]> {
  const urls: MemberUrl[] = [];
  for (const part of list.split(',')) {
    const parsed = parseMemberUrl(part);
    if (!parsed.ok) return parsed;
    urls.push(parsed.value);
  }
  urls.sort((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : 0));
  return { ok: true, value: urls };
}

/** The same without repeats, as etcd's flags.UniqueURLs. */
export function parseUniqueMemberUrls(list: string): Parsed<MemberUrl[]> {
  const parsed = parseMemberUrls(list);
  if (!parsed.ok) return parsed;
  return { ok: true, value: parsed.value.filter((url, index, all) => url.text !== all[index - 1]?.text) };
}

/** net.ParseIP(host) != nil. */
export function isIpAddress(host: string): boolean {
  const parts = host.split('.');
  if (parts.length === 4 && parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255))
    return true;
  return host.includes(':') && !host.includes('%') && URL.canParse(`http://[${host}]/`);
}

/** etcd's checkBindURLs: listeners take IP addresses or localhost. The error, or null. */
export function checkBindUrls(urls: readonly MemberUrl[]): string | null {
  for (const url of urls) {
    if (url.scheme === 'unix' || url.scheme === 'unixs' || url.host === 'localhost') continue;
    if (!isIpAddress(url.host)) return `expected IP in URL for binding (${url.text})`;
  }
  return null;
}

/** etcd's checkHostURLs: advertised URLs need a host. The error, or null. */
export function checkHostUrls(urls: readonly MemberUrl[]): string | null {
  for (const url of urls) {
    if (url.scheme === 'unix' || url.scheme === 'unixs') continue;
    if (url.host === '') return `unexpected empty host (${url.text})`;
  }
  return null;
}

export function urlTexts(urls: readonly MemberUrl[]): string[] {
  return urls.map((url) => url.text);
}
