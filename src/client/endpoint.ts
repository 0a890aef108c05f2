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
  /** The host when it is an address and no name: a certificate is then checked for the address. */
  readonly address: string | null;
}

const unixPattern: RegExp = /^(unixs?):(?:\/\/)?(.*)$/s;

export function parseEndpoint(text: string): Endpoint {
  const unix = unixPattern.exec(text);
  if (unix !== null) {
    const path = unix[2]!;
    return { target: `unix:${path}`, tls: unix[1] === 'unixs' ? 'required' : 'optional', isLocal: true, address: null };
  }
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):\/\/([^/?#]*)/.exec(text);
  if (scheme === null) return network(text, text, 'optional');
  const host = scheme[2]!.slice(scheme[2]!.lastIndexOf('@') + 1);
  switch (scheme[1]!.toLowerCase()) {
    case 'http':
      return network(host, host, 'never');
    case 'https':
      return network(host, host, 'required');
    default:
      return network(text, host, 'optional');
  }
}

function network(target: string, authority: string, tls: TlsUse): Endpoint {
  const address = /^(?:\[([0-9A-Fa-f:.]+)\]|(\d{1,3}(?:\.\d{1,3}){3}))(?::\d*)?$/.exec(authority);
  return { target, tls, isLocal: isLocalHost(authority), address: address?.[1] ?? address?.[2] ?? null };
}

function isLocalHost(authority: string): boolean {
  return /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::|$)/.test(authority);
}
