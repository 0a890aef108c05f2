// A peer URL as an address to connect to: http://host:port, https://host:port, unix://socket and unixs://socket, the forms that
// etcd takes. Not its validation with etcd's words (config/member-url.ts): URLs of other members come from the cluster.

export interface PeerAddress {
  readonly isSecure: boolean;
  /** The socket's path (authority and path together, as members bind it); '' for TCP. */
  readonly socketPath: string;
  /** Without brackets; '' for unix sockets. */
  readonly host: string;
  readonly port: number;
  /** For the Host header. */
  readonly authority: string;
}

/** Null when it is no peer URL. */
export function parsePeerUrl(url: string): PeerAddress | null {
  const match = /^(https?|unixs?):\/\/([^/?#@]*)(\/[^?#]*)?$/.exec(url);
  if (match === null) return null;
  const scheme = match[1]!;
  const authority = match[2]!;
  const isSecure = scheme === 'https' || scheme === 'unixs';
  if (scheme.startsWith('unix')) {
    const socketPath = authority + (match[3] ?? '');
    return socketPath === '' ? null : { isSecure, socketPath, host: '', port: 0, authority };
  }
  const parts = /^(?:\[([0-9a-fA-F:.%]+)\]|([^:[\]]+)):([0-9]{1,5})$/.exec(authority);
  if (parts === null || (match[3] ?? '/') !== '/') return null;
  const port = Number(parts[3]);
  return port > 65_535 ? null : { isSecure, socketPath: '', host: parts[1] ?? parts[2]!, port, authority };
}
