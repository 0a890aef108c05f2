// An endpoint as etcd's clients write it, as a target of grpc: "host:port", "http://host:port", "https://host:port",
// "unix:path", "unix://path" (relative), "unix:///path" (absolute) and the same with unixs. The scheme also says whether the
// connection is encrypted; without one the client's TLS settings decide. As clientv3/internal/endpoint of etcd 3.7.

export type TlsUse = 'required' | 'never' | 'optional';

export interface Endpoint {
  /** For grpc. */
  readonly target: string;
  readonly tls: TlsUse;
  /** On this machine: such connections never go through a proxy, as in Go. */
  readonly isLocal: boolean;
}

const unixPattern: RegExp = /^(unixs?):(?:\/\/)?(.*)$/s;

export function parseEndpoint(text: string): Endpoint {
  const unix = unixPattern.exec(text);
  if (unix !== null) {
    const path = unix[2]!;
    return { target: `unix:${path}`, tls: unix[1] === 'unixs' ? 'required' : 'optional', isLocal: true };
  }
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):\/\/([^/?#]*)/.exec(text);
  if (scheme === null) return { target: text, tls: 'optional', isLocal: isLocalHost(text) };
  const host = scheme[2]!.slice(scheme[2]!.lastIndexOf('@') + 1);
  switch (scheme[1]!.toLowerCase()) {
    case 'http':
      return { target: host, tls: 'never', isLocal: isLocalHost(host) };
    case 'https':
      return { target: host, tls: 'required', isLocal: isLocalHost(host) };
    default:
      return { target: text, tls: 'optional', isLocal: isLocalHost(host) };
  }
}

function isLocalHost(authority: string): boolean {
  return /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::|$)/.test(authority);
}
