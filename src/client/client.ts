// A client of etcd's v3 API, keelson's and etcd's alike: calls by method (rpc.ts) over a list of endpoints, typed by the
// schemas of src/proto. A call goes to an endpoint that is connected, in turn; while none is, it waits for the first one until
// its deadline. Methods that may be repeated are, elsewhere, while the cluster answers "unavailable". Watches: watch.ts;
// keeping leases alive: lease-keeper.ts.
//
//   const client = new EtcdClient({ endpoints: ['127.0.0.1:2379'] });
//   const { kvs } = await client.call(rpc.range, { key: Buffer.from('a') }, { deadlineMs: Date.now() + 5000 });
//   client.close();

import { clientAttemptsMax, clientBackoffMs, clientRequestBytesMax } from '../limits.ts';
import { decode, encode, type Message, type MessageInit, type Schema } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { type ByteDuplex, type CallContext, Connection, type TlsOptions } from './connection.ts';
import { parseEndpoint } from './endpoint.ts';
import { type Method, rpc } from './rpc.ts';
import { canceledError, deadlineError, EtcdClientError, isEtcdMessage, StatusCode } from './status.ts';

export interface ClientOptions {
  readonly endpoints: readonly string[];
  readonly tls?: TlsOptions | null;
  /** Either a user, whose token is fetched before the first call, or a token of one's own (JWT). */
  readonly user?: { readonly name: string; readonly password: string } | null;
  readonly token?: string | null;
  /** Bounds fetching a token and the first answer of a keep-alive. */
  readonly dialTimeoutMs?: number;
  readonly keepAliveMs?: number;
  readonly keepAliveTimeoutMs?: number;
  readonly requestBytesMax?: number;
  readonly responseBytesMax?: number;
  readonly log?: ClientLog;
}

export type ClientLog = (level: 'info' | 'warn', message: string, fields: Readonly<Record<string, unknown>>) => void;

export interface CallOptions {
  /** Date.now() at which the caller gives up; without one a call waits as long as it takes. */
  readonly deadlineMs?: number | undefined;
  /** Fail at a member that has no leader rather than wait. */
  readonly requireLeader?: boolean;
}

const apiVersion = '3.7';

export class EtcdClient {
  readonly endpoints: readonly string[];
  readonly dialTimeoutMs: number;
  readonly #connections: readonly Connection[];
  readonly #options: ClientOptions;
  readonly #requestBytesMax: number;
  readonly #log: ClientLog;
  #token: string | null;
  #next = 0;
  #isClosed = false;

  constructor(options: ClientOptions) {
    if (options.endpoints.length === 0) throw new Error('etcdclient: no available endpoints');
    this.endpoints = options.endpoints;
    this.dialTimeoutMs = options.dialTimeoutMs ?? 2000;
    this.#options = options;
    this.#requestBytesMax = options.requestBytesMax ?? clientRequestBytesMax;
    this.#log = options.log ?? (() => {});
    this.#token = options.token ?? null;
    const tls = options.tls ?? null;
    const use = parseEndpoint(options.endpoints[0]!).tls;
    const isTls = use === 'required' || (use === 'optional' && tls !== null);
    this.#connections = options.endpoints.map(
      (endpoint) =>
        new Connection(endpoint, isTls, {
          tls,
          keepAliveMs: options.keepAliveMs ?? 0,
          keepAliveTimeoutMs: options.keepAliveTimeoutMs ?? 20_000,
          responseBytesMax: options.responseBytesMax ?? 0x7fffffff,
        }),
    );
  }

  /** One request, one response. Rejects with EtcdClientError. */
  async call<Q extends Schema, R extends Schema>(
    method: Method<Q, R>,
    request: MessageInit<Q>,
    options: CallOptions = {},
  ): Promise<Message<R>> {
    const bytes = this.encode(method, request);
    for (let attempt = 0; ; attempt++) {
      let connection: Connection | null = null;
      try {
        const context = await this.#context(options, method.path !== rpc.authenticate.path);
        connection = await this.#pick(options.deadlineMs);
        return this.decode(method, await connection.unary(method.path, bytes, context));
      } catch (error) {
        await this.#beforeRetry(error, method, connection, attempt, options);
      }
    }
  }

  /** One request, many responses. A stream that fails before its first response is opened again if the method allows. */
  async *stream<Q extends Schema, R extends Schema>(
    method: Method<Q, R>,
    request: MessageInit<Q>,
    options: CallOptions = {},
  ): AsyncGenerator<Message<R>, void, undefined> {
    const bytes = this.encode(method, request);
    for (let attempt = 0; ; attempt++) {
      let connection: Connection | null = null;
      let isEmpty = true;
      try {
        const context = await this.#context(options, true);
        connection = await this.#pick(options.deadlineMs);
        const stream = connection.serverStream(method.path, bytes, context);
        try {
          for await (const chunk of stream as AsyncIterable<Buffer>) {
            isEmpty = false;
            yield this.decode(method, chunk);
          }
          return;
        } catch (error) {
          throw error instanceof EtcdClientError ? error : connection.failure(error, context);
        } finally {
          stream.cancel();
        }
      } catch (error) {
        if (!isEmpty) throw error;
        await this.#beforeRetry(error, method, connection, attempt, options);
      }
    }
  }

  /** A stream both ways, on one connection, for watches and keep-alives: they handle its failures. */
  async duplex(method: Method<Schema, Schema>, options: CallOptions): Promise<DuplexStream> {
    const context = await this.#context(options, true);
    const connection = await this.#pick(options.deadlineMs);
    const stream = connection.duplex(method.path, context);
    return { stream, failure: (error) => connection.failure(error, context) };
  }

  encode<Q extends Schema, R extends Schema>(method: Method<Q, R>, request: MessageInit<Q>): Buffer {
    const bytes = encode(method.request, request);
    if (bytes.length <= this.#requestBytesMax) return bytes;
    throw new EtcdClientError(
      StatusCode.resourceExhausted,
      `trying to send message larger than max (${bytes.length} vs. ${this.#requestBytesMax})`,
    );
  }

  decode<Q extends Schema, R extends Schema>(method: Method<Q, R>, bytes: Buffer): Message<R> {
    const message = decode(method.response, bytes);
    if (message !== undefined) return message;
    throw new EtcdClientError(StatusCode.internal, `the answer of ${method.path} is not a message`);
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Fetches the user's token now; else the first call does. Rejects when the cluster refuses the user. */
  async authenticate(): Promise<void> {
    await this.#fetchToken();
  }

  /** Ends every call and stream that is still open. */
  close(): void {
    this.#isClosed = true;
    for (const connection of this.#connections) connection.close();
  }

  /** Waits before the next attempt, or throws the error when there is none. */
  async #beforeRetry(
    error: unknown,
    method: Method<Schema, Schema>,
    connection: Connection | null,
    attempt: number,
    { deadlineMs }: CallOptions,
  ): Promise<void> {
    if (!(error instanceof EtcdClientError)) throw error;
    if (this.#isClosed) throw canceledError();
    await this.#logFailure(error, method.path, connection, attempt);
    const isTokenOld =
      error.is(etcdErrors.invalidAuthToken) || error.is(etcdErrors.authOldRevision) || error.is(etcdErrors.userEmpty);
    if (isTokenOld && this.#options.user && method.path !== rpc.authenticate.path && attempt === 0) {
      this.#token = null;
      return;
    }
    if (!method.isRepeatable || error.code !== StatusCode.unavailable || attempt + 1 >= clientAttemptsMax) throw error;
    const quorum = Math.floor(this.endpoints.length / 2) + 1;
    if ((attempt + 1) % quorum !== 0) return;
    const waitMs = clientBackoffMs * (0.9 + 0.2 * Math.random());
    if (deadlineMs !== undefined && Date.now() + waitMs >= deadlineMs) throw deadlineError(error.details);
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }

  async #logFailure(
    error: EtcdClientError,
    path: string,
    connection: Connection | null,
    attempt: number,
  ): Promise<void> {
    // Only who waited in vain for a connection does not know why.
    const connections = connection === null ? this.#connections : [connection];
    const reasons: string[] = [];
    if (error.code === StatusCode.deadlineExceeded && !isEtcdMessage(error.details)) {
      for (const each of connections) {
        const reason = await each.connectError();
        if (reason !== null) reasons.push(`${each.endpoint}: ${reason}`);
      }
    }
    const fields = {
      method: path,
      attempt,
      endpoint: connection?.endpoint ?? this.endpoints.join(','),
      error: error.status,
    };
    this.#log(
      'warn',
      'call failed',
      reasons.length === 0 ? fields : { ...fields, 'connection-error': reasons.join('; ') },
    );
  }

  async #context(options: CallOptions, withToken: boolean): Promise<CallContext> {
    const metadata: Record<string, string> = { 'client-api-version': apiVersion };
    if (options.requireLeader === true) metadata['hasleader'] = 'true';
    if (withToken) {
      const token = await this.#fetchToken();
      if (token !== '') metadata['token'] = token;
    }
    return { metadata, deadlineMs: options.deadlineMs };
  }

  /** Empty where the cluster has no authentication. */
  async #fetchToken(): Promise<string> {
    const user = this.#options.user ?? null;
    if (this.#token !== null || user === null) return this.#token ?? '';
    const deadlineMs = Date.now() + this.dialTimeoutMs;
    try {
      this.#token = (await this.call(rpc.authenticate, user, { deadlineMs })).token;
    } catch (error) {
      if (!(error instanceof EtcdClientError) || !error.is(etcdErrors.authNotEnabled)) throw error;
      this.#token = '';
    }
    return this.#token;
  }

  async #pick(deadlineMs: number | undefined): Promise<Connection> {
    const connections = this.#connections;
    const first = this.#next++ % connections.length;
    // The call itself waits for a lone connection.
    if (connections.length === 1) return connections[0]!;
    for (let index = 0; index < connections.length; index++) {
      const connection = connections[(first + index) % connections.length]!;
      if (connection.isReady()) return connection;
    }
    return Promise.race(connections.map((connection) => connection.ready(deadlineMs)));
  }
}

export interface DuplexStream {
  readonly stream: ByteDuplex;
  failure(error: unknown): EtcdClientError;
}
