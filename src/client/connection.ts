// A grpc channel to one endpoint: bytes in, bytes out, failures as EtcdClientError. It connects when first used and again by
// itself; calls wait for it until their deadline. Not a choice between endpoints, and no retries: client.ts has those.

import {
  type CallOptions,
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  connectivityState,
  credentials,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { clientKeepAliveMsMin } from '../limits.ts';
import { parseEndpoint } from './endpoint.ts';
import { canceledError, deadlineError, EtcdClientError, isEtcdMessage, StatusCode } from './status.ts';

/** PEM bytes. */
export interface TlsOptions {
  readonly trustedCa?: Buffer | undefined;
  readonly certificate?: Buffer | undefined;
  readonly key?: Buffer | undefined;
  readonly skipVerify?: boolean | undefined;
}

export interface ConnectionOptions {
  /** Null: encrypted only where the endpoint's scheme asks for it. */
  readonly tls: TlsOptions | null;
  readonly keepAliveMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly responseBytesMax: number;
}

export interface CallContext {
  readonly metadata: Readonly<Record<string, string>>;
  /** Date.now() at which the caller gives up; undefined: never. */
  readonly deadlineMs: number | undefined;
}

export type ByteStream = ClientReadableStream<Buffer>;
export type ByteDuplex = ClientDuplexStream<Buffer, Buffer>;

/** Sent where there is no name to send; nobody has it (RFC 2606). */
const noServerName = 'address.invalid';

/** node:crypto is loaded here because it takes milliseconds that only TLS to an address needs. */
function checkAddress(address: string, certificate: Buffer): Error | undefined {
  const { X509Certificate } = process.getBuiltinModule('node:crypto');
  if (new X509Certificate(certificate).checkIP(address) !== undefined) return undefined;
  return new Error(`x509: certificate is not valid for ${address}`);
}

const identity = (bytes: Buffer): Buffer => bytes;

export class Connection {
  readonly endpoint: string;
  readonly #client: Client;

  /** `isTls`: what the first endpoint's scheme decides for all, as clientv3 does. */
  constructor(endpoint: string, isTls: boolean, options: ConnectionOptions) {
    this.endpoint = endpoint;
    const { target, isLocal, address } = parseEndpoint(endpoint);
    const tls = options.tls ?? {};
    const channelCredentials = isTls
      ? credentials.createSsl(tls.trustedCa ?? null, tls.key ?? null, tls.certificate ?? null, {
          rejectUnauthorized: tls.skipVerify !== true,
          ...(address === null ? {} : { checkServerIdentity: (_host, { raw }) => checkAddress(address, raw) }),
        })
      : credentials.createInsecure();
    this.#client = newClient(endpoint, target, channelCredentials, {
      'grpc.max_receive_message_length': options.responseBytesMax,
      'grpc.keepalive_time_ms': Math.max(options.keepAliveMs, clientKeepAliveMsMin),
      'grpc.keepalive_timeout_ms': options.keepAliveTimeoutMs,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 2000,
      'grpc.enable_http_proxy': isLocal ? 0 : 1,
      // grpc-js would send an address as the server's name, which TLS forbids (RFC 6066) and Node refuses.
      ...(address === null ? {} : { 'grpc.ssl_target_name_override': noServerName }),
      // Channelz is a debugging service; without it nothing of a channel is registered globally.
      'grpc.enable_channelz': 0,
    });
  }

  isReady(): boolean {
    return this.#client.getChannel().getConnectivityState(true) === connectivityState.READY;
  }

  /** Resolves with this connection when it is ready. */
  ready(deadlineMs: number | undefined): Promise<Connection> {
    return new Promise((resolve, reject) => {
      this.#client.waitForReady(deadlineMs ?? Infinity, (error) => {
        if (error === undefined || error === null) resolve(this);
        else reject(deadlineMs !== undefined && Date.now() >= deadlineMs ? deadlineError() : canceledError());
      });
    });
  }

  unary(path: string, request: Buffer, context: CallContext): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        path,
        identity,
        identity,
        request,
        metadataOf(context, true),
        callOptions(context),
        (error, response) => {
          if (error !== null) reject(this.failure(error, context));
          else resolve(response!);
        },
      );
    });
  }

  serverStream(path: string, request: Buffer, context: CallContext): ByteStream {
    const metadata = metadataOf(context, true);
    return this.#client.makeServerStreamRequest(path, identity, identity, request, metadata, callOptions(context));
  }

  duplex(path: string, context: CallContext): ByteDuplex {
    return this.#client.makeBidiStreamRequest(
      path,
      identity,
      identity,
      metadataOf(context, true),
      callOptions(context),
    );
  }

  /** The transport's error as etcd's client words it. */
  failure(error: unknown, context: CallContext): EtcdClientError {
    const { code, details } = error as Partial<ServiceError>;
    if (code === undefined) throw error;
    if (code === StatusCode.deadlineExceeded && context.deadlineMs !== undefined && !isEtcdMessage(details ?? '')) {
      return deadlineError(details);
    }
    if (code === StatusCode.canceled && details === 'Cancelled on client') return canceledError();
    return new EtcdClientError(code, details ?? '');
  }

  /** Why the endpoint cannot be reached, or null when it can: a call that does not wait gets the last attempt's error. */
  async connectError(): Promise<string | null> {
    if (this.isReady()) return null;
    const context = { metadata: {}, deadlineMs: Date.now() + 50 };
    return new Promise((resolve) => {
      this.#client.makeUnaryRequest(
        '/grpc.health.v1.Health/Check',
        identity,
        identity,
        Buffer.alloc(0),
        metadataOf(context, false),
        callOptions(context),
        (error) => resolve(error?.code === StatusCode.unavailable ? error.details : null),
      );
    });
  }

  close(): void {
    this.#client.close();
  }
}

/** grpc throws at a target that it cannot read, such as an empty one. */
function newClient(
  endpoint: string,
  ...[target, channelCredentials, options]: ConstructorParameters<typeof Client>
): Client {
  try {
    return new Client(target, channelCredentials, options);
  } catch (error) {
    const message = `${JSON.stringify(endpoint)} is no endpoint: ${error instanceof Error ? error.message : String(error)}`;
    throw new EtcdClientError(StatusCode.unavailable, message, message);
  }
}

function metadataOf(context: CallContext, waitForReady: boolean): Metadata {
  const metadata = new Metadata({ waitForReady });
  for (const [name, value] of Object.entries(context.metadata)) metadata.set(name, value);
  return metadata;
}

function callOptions(context: CallContext): CallOptions {
  return context.deadlineMs === undefined ? {} : { deadline: context.deadlineMs };
}
