// One run of keelsonctl: its global flags with the environment's, its printer and its output; makes the clients that commands
// ask for. Order of checks as in etcdctl: a command's words first, then the environment and the files, then the format, so that
// a script that makes several mistakes sees the same one.

import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { EtcdClient } from '../client/client.ts';
import { bytesOf, textOf } from './byte-text.ts';
import { badArguments, ExitCode, ExitError, failingWith } from './exit.ts';
import { Flag } from './flag.ts';
import { applyEnvironment, type Environment, type GlobalFlags } from './global-flags.ts';
import { logLine } from './log-line.ts';
import { Output } from './output.ts';
import { loadPrinter, type Printable, type Printer, printWith } from './printer.ts';

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
  readonly #startMs: number = Date.now();

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
    return this.#program.opts<GlobalFlags>();
  }

  isGiven(flagName: string): boolean {
    const source = this.#program.getOptionValueSource(flagName);
    return source !== undefined && source !== 'default';
  }

  /** --command-timeout from the start of the command. */
  deadlineMs(): number {
    return this.#startMs + this.globals.commandTimeout;
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
    const flags: Flag[] = [];
    for (let each = this.#command.parent; each !== null; each = each.parent) {
      flags.push(...each.options.filter((option) => option instanceof Flag));
    }
    applyEnvironment(this.#command, flags, this.environment, this.#command.name() === 'watch', logLine);
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
    for (const option of this.#program.options) {
      const name = option.name().toUpperCase().replaceAll('-', '_');
      const value = String(this.#program.getOptionValue(option.attributeName()));
      const isSecret = ['user', 'password', 'auth-jwt-token'].includes(option.name()) && value !== '';
      process.stderr.write(`KEELSONCTL_${name}=${isSecret ? '(set)' : value}\n`);
    }
  }

  /** A client of these endpoints, by default all that were given. Closed at the end of the run at the latest. */
  async connect(endpoints?: readonly string[]): Promise<EtcdClient> {
    await this.configure();
    const { globals } = this;
    const { EtcdClient: Client } = await import('../client/client.ts');
    const list = (endpoints ?? globals.endpoints).map((endpoint) => textOf(endpoint).trim());
    if (list.length === 0) throw new ExitError(ExitCode.badConnection, 'etcdclient: no available endpoints');
    const client = new Client({
      endpoints: list,
      tls: this.#tls(),
      user: this.#user(),
      token: globals.authJwtToken === '' ? null : globals.authJwtToken,
      dialTimeoutMs: globals.dialTimeout,
      keepAliveMs: globals.keepaliveTime,
      keepAliveTimeoutMs: globals.keepaliveTimeout,
      ...(globals.maxRequestBytes > 0 ? { requestBytesMax: globals.maxRequestBytes } : {}),
      ...(globals.maxRecvBytes > 0 ? { responseBytesMax: globals.maxRecvBytes } : {}),
      log: logLine,
    });
    this.#clients.push(client);
    if (globals.user !== '') await failingWith(ExitCode.badConnection, client.authenticate());
    return client;
  }

  #tls(): { trustedCa?: Buffer; certificate?: Buffer; key?: Buffer; skipVerify: boolean } | null {
    const { cert, key, cacert, insecureTransport, insecureSkipTlsVerify } = this.globals;
    if (cert === '' && key === '' && cacert === '' && insecureTransport && !insecureSkipTlsVerify) return null;
    if ((cert === '') !== (key === '')) {
      throw badArguments(`KeyFile and CertFile must both be present[key: ${textOf(key)}, cert: ${textOf(cert)}]`);
    }
    return {
      ...(cacert === '' ? {} : { trustedCa: readPem(cacert) }),
      ...(cert === '' ? {} : { certificate: readPem(cert), key: readPem(key) }),
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
    const isMissing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    const reason = isMissing ? 'no such file or directory' : error instanceof Error ? error.message : String(error);
    throw badArguments(`open ${textOf(byteText)}: ${reason}`);
  }
}
