// Whether two members of different versions may talk (etcd's rafthttp/util.go): each must be at least of the release that the other
// says is the oldest that it works with. Only major and minor count.

export interface Version {
  readonly major: number;
  readonly minor: number;
  readonly text: string;
}

/** The oldest members that this one works with. */
export const minClusterVersion = '3.0.0';

/** "3.7.1", "3.7.0-rc.1+x"; '' is etcd 2.0, which did not say. Null when it is none. */
export function parseVersion(text: string): Version | null {
  const shown = text === '' ? '2.0.0' : text;
  const match = /^([0-9]{1,9})\.([0-9]{1,9})\.[0-9]{1,9}(?:[-+].*)?$/.exec(shown);
  return match === null ? null : { major: Number(match[1]), minor: Number(match[2]), text: shown };
}

export function compareVersions(a: Version, b: Version): number {
  return a.major === b.major ? a.minor - b.minor : a.major - b.major;
}

/** Null, or what etcd logs. `name` is what the other one calls itself. */
export function checkVersions(local: Version, name: string, server: Version, minCluster: Version): string | null {
  const who = `remote[${name}]=${server.text}, local=${local.text}`;
  if (compareVersions(server, parseVersion(minClusterVersion)!) < 0) return `remote version is too low: ${who}`;
  if (compareVersions(minCluster, local) > 0) return `local version is too low: ${who}`;
  return null;
}

/** Whether an older member knows both of the streams: 2.1 to 2.3, and all of etcd 3. */
export function knowsStreams({ major, minor }: Version): boolean {
  return major > 2 || (major === 2 && minor >= 1 && minor <= 3);
}
