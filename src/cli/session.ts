// One run of keelsonctl: its global flags with the environment's, its printer and its output; makes the clients that commands
// ask for. Order of checks as in etcdctl: a command's words first, then the environment and the files, then the format, so that
// a script that makes several mistakes sees the same one.

import { readFileSync } from 'node:fs';
import type { EtcdClient } from '../client/client.ts';
import { clientRequestBytesMax } from '../limits.ts';
import { bytesOf, textOf } from './byte-text.ts';
import type { Command } from './command.ts';
import { badArguments, ExitCode, ExitError, failingWith } from './exit.ts';
import { applyEnvironment, type Environment, type GlobalFlags } from './global-flags.ts';
import { logLine } from './log-line.ts';
import { complain, Output } from './output.ts';
import { loadPrinter, type Printable, type Printer, printWith } from './printer.ts';
import { reasonOf } from './system-error.ts';

export class Session {
  readonly out: Output;
  /** Of the whole command line, as byte strings. */
  readonly argumentWords: readonly string[];
  readonly environment: Environment;
  readonly #program: Command;
  #command: Command;
  #isConfigured = false;
  #printer: Printer | null = null;
  readonly #clients: EtcdClient[] = [];
  #deadlineMs: number | null = null;

  constructor(
    program: Command,
    argumentWords: readonly string[],
    environment: Environment,
    out: Output = new Output(),
  ) {
    this.#program = program;
    this.#command = program;
    this.argumentWords = argumentWords;
    this.environment = environment;
    this.out = out;
  }

  /** The command that runs: flags that it shares with its subcommands take variables too (endpoint's --cluster). */
  enter(command: Command): void {
    this.#command = command;
  }

  get globals(): GlobalFlags {
    return this.#program.values<GlobalFlags>();
  }

  /** On the command line or by a variable. */
  isGiven(flagName: string): boolean {
    return this.#program.flags.some((flag) => flag.name === flagName && flag.source !== 'default');
  }

  get requestBytesMax(): number {
    return this.globals.maxRequestBytes > 0 ? this.globals.maxRequestBytes : clientRequestBytesMax;
  }

  /** --command-timeout from the first call on: neither our start nor what the input waits for counts. */
  deadlineMs(): number {
    this.#deadlineMs ??= this.deadlineFromNowMs();
    return this.#deadlineMs;
  }

  /** The same, from now: for commands that give each of several calls the whole time. */
  deadlineFromNowMs(): number {
    return Date.now() + this.globals.commandTimeout;
  }

  get format(): string {
    return this.globals.writeOut;
  }

  /** Reads the environment, checks the global flags and loads the printer. */
  async configure(): Promise<void> {
    if (this.#isConfigured) return;
    this.#isConfigured = true;
    // Flags that the command shares with others: the program's, and those of the commands between.
    const flags = [...this.#command.lineage()].slice(1).flatMap((command) => command.flags);
    applyEnvironment(flags, this.environment, this.#command.name === 'watch', logLine);
    if (this.globals.debug) this.#printFlags();
    const { discoverySrv, cert, key, cacert } = this.globals;
    if (discoverySrv !== '') throw badArguments('--discovery-srv is not supported yet: give --endpoints');
    for (const [name, value] of Object.entries({ cert, key, cacert })) {
      if (value === '' && this.isGiven(name)) throw badArguments(`empty string is passed to --${name} option`);
    }
    this.#printer = await loadPrinter(this.format, this.globals.hex);
    if (this.#printer === null) throw new ExitError(ExitCode.badFeature, 'unsupported output format');
  }

  /** What the command runs with, as variables. */
  #printFlags(): void {
    for (const { name, value } of this.#program.flags) {
      const isSecret = ['user', 'password', 'auth-jwt-token'].includes(name) && value !== '';
      complain(`KEELSONCTL_${name.toUpperCase().replaceAll('-', '_')}=${isSecret ? '(set)' : String(value)}\n`);
    }
  }

  /** A client of these endpoints, by default all that were given. Closed at the end of the run at the latest. */
  async connect(endpoints?: readonly string[]): Promise<EtcdClient> {
    await this.configure();
    const list = (endpoints ?? this.globals.endpoints).map((endpoint) => textOf(endpoint).trim());
    if (list.length === 0) throw new ExitError(ExitCode.badConnection, 'etcdclient: no available endpoints');
    const client = await failingWith(ExitCode.badConnection, this.#newClient(list));
    this.#clients.push(client);
    if (this.globals.user !== '') await failingWith(ExitCode.badConnection, client.authenticate());
    return client;
  }

  async #newClient(endpoints: readonly string[]): Promise<EtcdClient> {
    const { globals } = this;
    const { EtcdClient: Client } = await import('../client/client.ts');
    return new Client({
      endpoints,
      tls: this.#tls(),
      user: this.#user(),
      token: globals.authJwtToken === '' ? null : globals.authJwtToken,
      dialTimeoutMs: globals.dialTimeout,
      keepAliveMs: globals.keepaliveTime,
      keepAliveTimeoutMs: globals.keepaliveTimeout,
      requestBytesMax: this.requestBytesMax,
      ...(globals.maxRecvBytes > 0 ? { responseBytesMax: globals.maxRecvBytes } : {}),
      log: logLine,
    });
  }

  #tls(): { trustedCa?: Buffer; certificate?: Buffer; key?: Buffer; skipVerify: boolean } | null {
    const { cert, key, cacert, insecureTransport, insecureSkipTlsVerify } = this.globals;
    if (cert === '' && key === '' && cacert === '' && insecureTransport && !insecureSkipTlsVerify) return null;
    if ((cert === '') !== (key === '')) {
      throw badArguments(`KeyFile and CertFile must both be present[key: ${textOf(key)}, cert: ${textOf(cert)}]`);
    }
    return {
      ...(cacert === '' ? {} : { trustedCa: readPem(cacert) }),
      ...(cert === '' ? {} : readKeyPair(cert, key)),
      skipVerify: insecureSkipTlsVerify,
    };
  }

  #user(): { name: string; password: string } | null {
    const { user, password, authJwtToken } = this.globals;
    if (user === '' || authJwtToken !== '') return null;
    if (password !== '') return { name: textOf(user), password: textOf(password) };
    const colon = user.indexOf(':');
    if (colon < 0) throw new ExitError(ExitCode.error, 'a password is needed: --user name:password, or --password');
    return { name: textOf(user.slice(0, colon)), password: textOf(user.slice(colon + 1)) };
  }

  get isSimple(): boolean {
    return this.format === 'simple';
  }

  print<K extends keyof Printable>(kind: K, value: Printable[K]): void {
    if (this.#printer === null) throw new Error('printing before the session is configured');
    printWith(this.#printer, this.format, kind, value, this.out);
  }

  close(): void {
    for (const client of this.#clients) client.close();
  }
}

function readPem(byteText: string): Buffer {
  try {
    return readFileSync(bytesOf(byteText));
  } catch (error) {
    throw badArguments(`open ${textOf(byteText)}: ${reasonOf(error)}`);
  }
}

function readKeyPair(certPath: string, keyPath: string): { certificate: Buffer; key: Buffer } {
  const [certificate, key] = [readPem(certPath), readPem(keyPath)];
  for (const [what, pem] of Object.entries({ certificate, key })) {
    if (!pem.includes('-----BEGIN ')) throw badArguments(`tls: failed to find any PEM data in ${what} input`);
  }
  try {
    process.getBuiltinModule('node:tls').createSecureContext({ cert: certificate, key });
  } catch (error) {
    throw badArguments(`tls: ${textOf(certPath)} and ${textOf(keyPath)} are no key pair: ${reasonOf(error)}`);
  }
  return { certificate, key };
}
