// Requests and answers of the HTTP endpoints, free of any transport: HTTP/1.1 (io/http1.ts) and HTTP/2 both carry them. The
// small helpers word what Go's net/http words: http.Error, NotFound, query parsing, path cleaning.

export interface AdminRequest {
  readonly method: string;
  /** Path with query as sent. */
  readonly target: string;
  /** The Host header or :authority, '' when absent. */
  readonly host: string;
  /** The Origin header, '' when absent. */
  readonly origin: string;
  /** Whether the connection is TLS. */
  readonly secure: boolean;
  /** Lower-case names; only requests of peers are looked at that far. */
  readonly headers?: Readonly<Record<string, string | string[] | undefined>>;
  readonly body?: Buffer;
}

export interface AdminResponse {
  readonly status: number;
  /** Names as Go prints them. Content-Length and Date are the transport's. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** An HTTP/1 connection ends behind it. */
  readonly closes?: boolean;
}

/** Other members are answered with messages, too. */
export interface PeerListenerResponse extends Omit<AdminResponse, 'body'> {
  readonly body: string | Buffer;
}

const plainText = 'text/plain; charset=utf-8';

/** Go's http.Error. */
export function errorResponse(
  status: number,
  message: string,
  extra: Readonly<Record<string, string>> = {},
): AdminResponse {
  const headers = { ...extra, 'Content-Type': plainText, 'X-Content-Type-Options': 'nosniff' };
  return { status, headers, body: `${message}\n` };
}

export function notFound(): AdminResponse {
  return errorResponse(404, '404 page not found');
}

export function methodNotAllowed(): AdminResponse {
  return errorResponse(405, 'Method Not Allowed', { Allow: 'GET' });
}

export interface Target {
  readonly path: string;
  /** As it was sent: redirects are about this, since an escaped slash is none. */
  readonly rawPath: string;
  readonly query: string;
}

/** The parts of a target, or null when its path has a bad escape. A # is no fragment here but part of the path, as Go takes it. */
export function splitTarget(target: string): Target | null {
  const end = target.indexOf('?');
  const query = end >= 0 ? target.slice(end + 1) : '';
  const raw = end < 0 ? target : target.slice(0, end);
  const rawPath = raw.startsWith('/') ? raw : (/^[a-z]+:\/\/[^/]*(\/.*)?$/i.exec(raw)?.[1] ?? '/');
  try {
    return { path: decodeURIComponent(rawPath), rawPath, query };
  } catch {
    return null;
  }
}

/** The target of a request, or what Go's server answers before any handler, the guard included. */
export function openRequest({ method, target }: AdminRequest): Target | AdminResponse {
  if (method === 'OPTIONS' && target === '*') return { status: 200, headers: {}, body: '' };
  const parts = splitTarget(target);
  if (parts !== null) return parts;
  return { status: 400, headers: { 'Content-Type': plainText }, body: '400 Bad Request', closes: true };
}

/** Go's url.Values of a query: pairs that are malformed are left out. */
export function parseQuery(query: string): Map<string, string[]> {
  const values = new Map<string, string[]>();
  for (const pair of query.split('&')) {
    if (pair === '' || pair.includes(';')) continue;
    const equals = pair.indexOf('=');
    try {
      const name = unescapeQuery(equals < 0 ? pair : pair.slice(0, equals));
      const value = unescapeQuery(equals < 0 ? '' : pair.slice(equals + 1));
      const list = values.get(name);
      if (list === undefined) values.set(name, [value]);
      else list.push(value);
    } catch {
      // A bad escape: Go drops the pair too.
    }
  }
  return values;
}

function unescapeQuery(text: string): string {
  return decodeURIComponent(text.replaceAll('+', ' '));
}

/** Go's ServeMux sends a path with //, /./ or /../ to its clean form. The redirect, or null when the path is clean. */
export function redirectToClean(path: string, query: string, method: string): AdminResponse | null {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  const slash = parts.length > 0 && /(?:\/|\/\.|\/\.\.)$/.test(path) && path.endsWith('/') ? '/' : '';
  const clean = `/${parts.join('/')}${slash}`;
  if (clean === path) return null;
  const location = encodeURI(clean) + (query === '' ? '' : `?${query}`);
  const hasBody = method === 'GET' || method === 'HEAD';
  const headers = { Location: location, ...(hasBody ? { 'Content-Type': 'text/html; charset=utf-8' } : {}) };
  const link = location
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&#34;')
    .replaceAll("'", '&#39;');
  const body = method === 'GET' ? `<a href="${link}">Temporary Redirect</a>.\n\n` : '';
  return { status: 307, headers, body };
}
