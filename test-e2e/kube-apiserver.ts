// A real kube-apiserver on a store: certificates and keys of its own in the test's folder, one token that may do everything, no
// controllers (so nobody but the test writes pods). Not a cluster: nothing runs.

import { execFile } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePorts } from '../src/testing/free-port.ts';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { KubeClient } from './kube-client.ts';
import { Hopeless, Program, until } from './program.ts';

const run = promisify(execFile);
export const kubeVersion = '1.36.3';
const READY_TIMEOUT_MS = 120_000;

export class KubeApiServer {
  readonly client: KubeClient;
  readonly kubeconfig: string;
  readonly #folder: string;
  readonly #args: readonly string[];
  #program: Program | null = null;

  private constructor(folder: string, port: number, storeEndpoint: string, flags: readonly string[]) {
    this.#folder = folder;
    const token = randomBytes(16).toString('hex');
    const files = join(folder, 'kube');
    mkdirSync(files, { recursive: true });
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const serviceAccountKey = join(files, 'service-account.key');
    writeFileSync(serviceAccountKey, privateKey.export({ type: 'sec1', format: 'pem' }));
    writeFileSync(join(files, 'tokens.csv'), `${token},admin,admin,"system:masters"\n`);
    this.kubeconfig = join(files, 'kubeconfig');
    writeFileSync(this.kubeconfig, kubeconfigOf(port, token));
    this.client = new KubeClient(port, token);
    this.#args = [
      `--etcd-servers=http://${storeEndpoint}`,
      // The test compacts when it wants to.
      '--etcd-compaction-interval=0',
      `--secure-port=${port}`,
      '--bind-address=127.0.0.1',
      `--cert-dir=${join(files, 'certs')}`,
      '--authorization-mode=AlwaysAllow',
      `--token-auth-file=${join(files, 'tokens.csv')}`,
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${serviceAccountKey}`,
      `--service-account-signing-key-file=${serviceAccountKey}`,
      '--service-cluster-ip-range=10.96.0.0/16',
      // Without a controller manager no namespace gets its service account.
      '--disable-admission-plugins=ServiceAccount',
      ...flags,
    ];
  }

  static async create(folder: string, storeEndpoint: string, flags: readonly string[] = []): Promise<KubeApiServer> {
    const [port] = await freePorts(1);
    return new KubeApiServer(folder, port!, storeEndpoint, flags);
  }

  /** Starts it; resolves when /readyz says ok. Returns what that took, in ms. */
  async start(): Promise<number> {
    const began = performance.now();
    const file = join(peerBinaries, `kube-apiserver-${kubeVersion}`);
    // Where its own comparison of cache and store (every five minutes) finds a difference, it is to fall over it.
    const env = { KUBE_WATCHCACHE_CONSISTENCY_CHECKER: 'true' };
    const program = new Program({ name: 'kube-apiserver', file, args: this.#args, folder: this.#folder, env });
    this.#program = program;
    await this.ready();
    return performance.now() - began;
  }

  async ready(): Promise<void> {
    await until('kube-apiserver /readyz', READY_TIMEOUT_MS, async () => {
      if (this.#program?.ended !== false) throw new Hopeless(`kube-apiserver ended: ${this.log().slice(-3000)}`);
      const answer = await this.client.send('GET', '/readyz?verbose');
      if (answer.status !== 200) throw new Error(answer.text);
      return true;
    });
  }

  async kill(): Promise<void> {
    await this.#program?.stop('SIGKILL');
  }

  log(): string {
    return this.#program?.log() ?? '';
  }

  async metrics(): Promise<string> {
    return (await this.client.send('GET', '/metrics')).text;
  }

  /** kubectl with the arguments; its standard output. */
  async kubectl(...args: string[]): Promise<string> {
    const { stdout } = await run(join(peerBinaries, 'kubectl'), ['--kubeconfig', this.kubeconfig, ...args], {
      maxBuffer: 64 * 1024 * 1024,
      env: { HOME: this.#folder },
    });
    return stdout;
  }
}

function kubeconfigOf(port: number, token: string): string {
  return `apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: "https://127.0.0.1:${port}", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: "${token}"}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
`;
}
