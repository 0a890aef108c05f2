// A network of a test's own: a namespace a host, all behind one that forwards between them, where what one host sends to another can be
// dropped silently, in one direction or both. The machine's own namespace gets one interface and one route, so that the test reaches the
// hosts; both go with the forwarding namespace. Needs the rights of root; no packet filter and no queueing discipline.
//
//   test ── root namespace ── forwarding namespace ── host 1
//                                                 └── host 2 ...

import { execFileSync } from 'node:child_process';
import { randomInt } from 'node:crypto';

/** Four addresses a link in 198.18.x.0/24, which is for tests of networks (RFC 2544). */
const linkAddresses = 4;

export interface Host {
  readonly address: string;
  /** Runs a program there. */
  readonly launcher: readonly string[];
}

export class Network {
  readonly hosts: readonly Host[];
  readonly #name = `kl${randomInt(0x10000).toString(16)}`;
  readonly #prefix = `198.18.${randomInt(1, 255)}`;
  readonly #namespaces: string[] = [];
  readonly #cuts = new Set<string>();

  constructor(hostCount: number) {
    try {
      this.#addNamespace(this.#forwarding);
      this.#inForwarding('sysctl', '-q', '-w', 'net.ipv4.ip_forward=1');
      this.#link(0, null);
      ip('route', 'add', `${this.#prefix}.0/24`, 'via', this.#address(0, 1));
      this.hosts = Array.from({ length: hostCount }, (_, index) => this.#addHost(index + 1));
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  /** Why there can be none here, or false. */
  static refusal(): string | false {
    try {
      const network = new Network(2);
      network.cut(network.hosts[0]!, network.hosts[1]!);
      network.remove();
      return false;
    } catch (error) {
      const { stderr } = error as { stderr?: Buffer };
      return `needs the right to make network namespaces: ${stderr?.toString().trim() ?? String(error)}`;
    }
  }

  /** What `from` sends to `to` is lost from now on; not what comes back. */
  cut(from: Host, to: Host): void {
    this.#rule('add', `${from.address} ${to.address}`);
    this.#cuts.add(`${from.address} ${to.address}`);
  }

  cutBothWays(one: Host, other: Host): void {
    this.cut(one, other);
    this.cut(other, one);
  }

  /** Takes all cuts back. */
  heal(): void {
    for (const cut of this.#cuts) this.#rule('del', cut);
    this.#cuts.clear();
  }

  /** What runs on the hosts must have ended. */
  remove(): void {
    // A namespace takes its interfaces with it, and these their other ends and routes.
    for (const name of this.#namespaces) ip('netns', 'del', name);
    this.#namespaces.length = 0;
  }

  get #forwarding(): string {
    return `${this.#name}-f`;
  }

  #rule(change: 'add' | 'del', cut: string): void {
    const [from, to] = cut.split(' ');
    this.#inForwarding('ip', 'rule', change, 'from', from!, 'to', to!, 'blackhole');
  }

  #inForwarding(...command: string[]): void {
    ip('netns', 'exec', this.#forwarding, ...command);
  }

  #addNamespace(name: string): void {
    ip('netns', 'add', name);
    this.#namespaces.push(name);
    ip('-n', name, 'link', 'set', 'lo', 'up');
  }

  #addHost(index: number): Host {
    const namespace = `${this.#name}-${index}`;
    this.#addNamespace(namespace);
    this.#link(index, namespace);
    ip('-n', namespace, 'route', 'add', 'default', 'via', this.#address(index, 1));
    return { address: this.#address(index, 2), launcher: ['ip', 'netns', 'exec', namespace] };
  }

  #address(link: number, end: 1 | 2): string {
    return `${this.#prefix}.${link * linkAddresses + end}`;
  }

  /** Of the forwarding namespace to another, null: the machine's own. */
  #link(index: number, namespace: string | null): void {
    const [near, far] = [`${this.#name}f${index}`, `${this.#name}h${index}`];
    ip('-n', this.#forwarding, 'link', 'add', near, 'type', 'veth', 'peer', 'name', far);
    ip('-n', this.#forwarding, 'addr', 'add', `${this.#address(index, 1)}/30`, 'dev', near);
    ip('-n', this.#forwarding, 'link', 'set', near, 'up');
    ip('-n', this.#forwarding, 'link', 'set', far, 'netns', namespace ?? String(process.pid));
    const there = namespace === null ? [] : ['-n', namespace];
    ip(...there, 'addr', 'add', `${this.#address(index, 2)}/30`, 'dev', far);
    ip(...there, 'link', 'set', far, 'up');
  }
}

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: 'pipe' });
}
