// The process: flags → object graph → listen, signals, exit codes. Everything that it builds is described where it is defined.

import { existsSync, readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { Admin } from './admin/admin.ts';
import { memberSource } from './admin/member-source.ts';
import { ExitCode, FatalError } from './base/fatal.ts';
import { loadConfig } from './config/load.ts';
import { type MemberUrl, urlTexts } from './config/member-url.ts';
import type { LogConfig, ServerConfig } from './config/server-config.ts';
import { startingFields, startingMessage } from './config/starting-message.ts';
import { etcdVersion, keelsonVersion } from './config/version.ts';
import type { HttpHandler } from './grpc/http-exchange.ts';
import type { CallObserver } from './grpc/observer.ts';
import { Router } from './grpc/router.ts';
import { GrpcServer, grpcServerOptions } from './grpc/server.ts';
import { StatusCode } from './grpc/status.ts';
import { systemClock } from './io/clock.ts';
import { startFailpoints } from './io/failpoint-http.ts';
import { Http1Server } from './io/http1.ts';
import { type ListenAddress, Listener, type ListenerOptions } from './io/listener.ts';
import { openLogSink } from './io/log-sink.ts';
import { defaultHost, processReader } from './io/process-info.ts';
import { systemRandom } from './io/random.ts';
import { threadedWriter } from './io/wal-thread.ts';
import { grpcLimits, http1IgnoredBodyBytesMax, shutdownGraceMs } from './limits.ts';
import { registerCluster } from './rpc/cluster.ts';
import { registerHealth } from './rpc/health.ts';
import { registerKv } from './rpc/kv.ts';
import { registerLease } from './rpc/lease.ts';
import { registerMaintenance } from './rpc/maintenance.ts';
import { registerWatch } from './rpc/watch.ts';
import { startAutoCompaction } from './server/auto-compactor.ts';
import { openMember } from './server/bootstrap.ts';
import type { Member } from './server/member.ts';
import { backendObserver, leaseCounters, memberCounters, scrapeMember, walObserver } from './server/observers.ts';
import { grpcMethodIndex } from './telemetry/grpc-methods.ts';
import { Logger, parseLogLevel } from './telemetry/logger.ts';
import type { ClientVersionCounter, GrpcMetrics, NetworkMetrics } from './telemetry/member-metrics.ts';
import { Metrics } from './telemetry/metrics.ts';

const CALLER = 'main.ts';
/** What grpc-go lets a message exceed --max-request-bytes by, as etcd sets it. */
const GRPC_OVERHEAD_BYTES: number = 512 * 1024;

const wallMs = (): number => performance.timeOrigin + performance.now();

function newLogger(log: LogConfig): Logger {
  const sink = openLogSink(log.outputs.filter((output) => output !== '/dev/null'));
  return new Logger({ level: parseLogLevel(log.level) ?? 'info', format: log.format, sink, now: wallMs });
}

/** Ends the process for a reason that the log tells. Used from callbacks that have nobody to throw to, too. */
function die(logger: Logger, error: unknown): never {
  if (error instanceof FatalError) {
    logger.fatal(CALLER, error.message, { 'exit-code': error.exitCode });
    logger.flush();
    process.exit(error.exitCode);
  }
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  logger.fatal(CALLER, 'a bug: the process ends so that nothing wrong is acknowledged', { error: stack });
  logger.flush();
  process.exit(ExitCode.bug);
}

async function main(): Promise<void> {
  const loaded = await loadConfig({
    argv: ['keelson', ...process.argv.slice(2)],
    env: process.env,
    readFile: (path) => readFileSync(path, 'utf8'),
    defaultHost,
    nodeVersion: process.version,
    platform: process.platform,
    arch: process.arch,
  });
  const logger = newLogger(loaded.kind === 'run' ? loaded.config.log : loaded.log);
  for (const { level, caller, msg, fields } of loaded.notices.list) logger.log(level, caller, msg, fields);
  if (loaded.kind === 'exit') {
    process.stdout.write(loaded.stdout);
    process.stderr.write(loaded.stderr);
    logger.flush();
    process.exitCode = loaded.code;
    return;
  }
  process.on('uncaughtException', (error) => die(logger, error));
  process.on('unhandledRejection', (error) => die(logger, error));
  try {
    await serve(loaded.config, logger);
  } catch (error) {
    die(logger, error);
  }
}

async function serve(config: ServerConfig, logger: Logger): Promise<void> {
  const failpoints = await startFailpoints(process.env);
  const metrics = newMetrics(config);
  const router = new Router();
  // HTTP/2 requests that are no gRPC come to the same endpoints as HTTP/1.1's, once there is a member behind them.
  let onHttpRequest: HttpHandler = (_request, _body, respond) => respond(503, {}, Buffer.alloc(0));
  const grpc = newGrpcServer(config, router, metrics, (request, body, respond) =>
    onHttpRequest(request, body, respond),
  );
  const runtime = {
    nodeVersion: process.version,
    platform: process.platform,
    arch: process.arch,
    cpuCount: cpus().length,
  };
  logger.info(CALLER, startingMessage, startingFields(config, runtime, existsSync(`${config.dataDir}/member`)));
  const leases = leaseCounters(metrics);
  const member = openMember({
    config,
    clusterVersion: `${etcdVersion.split('.').slice(0, 2).join('.')}.0`,
    logger,
    random: systemRandom,
    walWriter: threadedWriter(),
    walObserver: walObserver(metrics),
    backendObserver: backendObserver(metrics, () => systemClock.wallMs()),
    memberCounters: memberCounters(metrics),
    leaseCounters: leases,
    failpoints: failpoints?.shared ?? null,
    onFatal: (error) => die(logger, error),
    flushConnections: () => grpc.flushQueue.flushAll(),
    schedule: setImmediate,
  });
  const watchStreams = { streams: 0 };
  metrics.onScrape(() => {
    scrapeMember(metrics, member, leases);
    metrics.mvcc.watchStreams = watchStreams.streams;
  });
  registerServices(router, member, config, metrics, watchStreams);
  const admin = newAdmin(config, logger, metrics, member);
  onHttpRequest = (request, _body, respond) => {
    const { method, path, headers } = request;
    const fields = { host: headers['host'] ?? '', origin: headers['origin'] ?? '', secure: false };
    void admin.handle({ method, target: path, ...fields }).then((answer) => {
      respond(answer.status, answer.headers, Buffer.from(answer.body));
    });
  };
  setInterval(() => member.tick(), config.heartbeatIntervalMs);
  setInterval(() => grpc.tick(), grpcLimits.timerTickMs);
  await new Promise<void>((ready) => member.start(ready));
  const listeners = await listenAll(config, logger, grpc, admin);
  startAutoCompaction(member, config.autoCompaction, (delayMs, callback) => systemClock.setTimer(delayMs, callback));
  onSignals(config, logger, listeners, grpc, member);
  logger.info(CALLER, 'ready to serve client requests', { addresses: listeners[0]!.addresses() });
  for (const address of listeners[0]!.addresses()) {
    logger.info(CALLER, 'serving client traffic insecurely; this is strongly discouraged!', {
      traffic: config.listenClientHttpUrls.length > 0 ? 'grpc' : 'grpc+http',
      address,
    });
  }
  await metrics.warmUp();
}

function newGrpcServer(config: ServerConfig, router: Router, metrics: Metrics, onHttpRequest: HttpHandler): GrpcServer {
  return new GrpcServer(
    grpcServerOptions({
      router,
      clock: systemClock,
      schedule: setImmediate,
      observer: callObserver(metrics, router),
      messageBytesMax: config.requestBytesMax + GRPC_OVERHEAD_BYTES,
      concurrentStreamsMax: config.concurrentStreamsMax,
      keepalive: {
        // grpc-go's own default where the flag is 0.
        minTimeMs: config.keepaliveMinTimeMs > 0 ? config.keepaliveMinTimeMs : 300_000,
        intervalMs: config.keepaliveIntervalMs,
        timeoutMs: config.keepaliveTimeoutMs,
        permitWithoutStream: false,
      },
      onHttpRequest,
    }),
  );
}

function newAdmin(config: ServerConfig, logger: Logger, metrics: Metrics, member: Member): Admin {
  return new Admin({
    source: memberSource({
      member,
      etcdVersion,
      metricsText: () => metrics.text(),
      setTimer: (delayMs, callback) => systemClock.setTimer(delayMs, callback),
    }),
    metrics,
    logger,
    access: { cors: config.cors, hostWhitelist: config.hostWhitelist },
    requestTimeoutMs: member.requestTimeoutMs,
  });
}

/** Client listeners first, then those for HTTP alone and for metrics alone. */
async function listenAll(config: ServerConfig, logger: Logger, grpc: GrpcServer, admin: Admin): Promise<Listener[]> {
  const http1 = (handler: ConstructorParameters<typeof Http1Server>[0]['handler']): Http1Server =>
    new Http1Server({
      handler,
      bodyBytesMax: http1IgnoredBodyBytesMax,
      onError: (error) => die(logger, error),
    });
  const clientHttp = http1((request) => admin.handle(request));
  const metricsHttp = http1((request) => admin.handleMetricsOnly(request));
  const http2: ListenerOptions['http2'] = (transport, peer) =>
    grpc.accept(transport, {
      id: ++connectionId,
      remoteAddress: peer.remote,
      localAddress: peer.local,
      tls: null,
    });
  const listen = async (urls: readonly MemberUrl[], http1Server: Http1Server | null): Promise<Listener> => {
    try {
      return await Listener.listen({
        addresses: urls.map(addressOf),
        http2,
        http1: http1Server === null ? null : (socket, firstBytes) => http1Server.accept(socket, firstBytes),
        tls: null,
      });
    } catch (error) {
      throw listenFailure(error);
    }
  };
  const hasOwnHttp = config.listenClientHttpUrls.length > 0;
  const listeners = [await listen(config.listenClientUrls, hasOwnHttp ? null : clientHttp)];
  if (hasOwnHttp) listeners.push(await listen(config.listenClientHttpUrls, clientHttp));
  if (config.listenMetricsUrls.length > 0) listeners.push(await listen(config.listenMetricsUrls, metricsHttp));
  return listeners;
}

let connectionId = 0;

function newMetrics(config: ServerConfig): Metrics {
  const options = {
    serverVersion: etcdVersion,
    runtimeVersion: `node${process.version}`,
    extensive: config.extensiveMetrics,
    features: config.features.all(),
  };
  return new Metrics(options, async (families) => {
    const { RuntimeMetrics } = await import('./telemetry/runtime-metrics.ts');
    return new RuntimeMetrics(families, `node${process.version} keelson-${keelsonVersion}`, processReader);
  });
}

function callObserver(metrics: Metrics, router: Router): CallObserver {
  const { grpc, network } = metrics;
  // Requests of one client follow each other: most have the version of the one before.
  let lastVersion = '';
  let lastCounter: ClientVersionCounter | null = null;
  // The metrics' place of each method of the router, filled once all methods are registered.
  const indexes: number[] = [];
  const indexOf = (index: number): number => {
    if (indexes.length === 0) indexes.push(...router.methods().map(({ path }) => grpcMethodIndex(path)));
    return indexes[index]!;
  };
  return {
    wantsDuration: grpc.handling !== null,
    started: (method, call) => {
      grpc.started[indexOf(method.index)]!++;
      const version = call.metadata('client-api-version') ?? 'unknown';
      if (version !== lastVersion) {
        lastVersion = version;
        lastCounter = network.clientVersion(version);
      }
      lastCounter!.count(method.kind === 'unary');
    },
    received: (method) => grpc.received[indexOf(method.index)]!++,
    sent: (method) => grpc.sent[indexOf(method.index)]!++,
    handled: (method, code, durationMs) => {
      const index = indexOf(method.index);
      grpc.handled(index, code);
      if (method.kind === 'bidi') countStreamEnd(network, grpc, index, code, method.name);
      // etcd's interceptor counts the answer of a unary call even when it is an error.
      else if (code !== 0 && method.kind === 'unary') grpc.sent[index]!++;
      grpc.handling?.[index]?.observe(durationMs / 1000);
    },
    receivedBytes: (bytes) => {
      network.clientReceivedBytes += bytes;
    },
    sentBytes: (bytes) => {
      network.clientSentBytes += bytes;
    },
  };
}

/** In etcd the receive that finds a stream's end counts as one, but none follows where the server has ended it. */
function countStreamEnd(network: NetworkMetrics, grpc: GrpcMetrics, index: number, code: number, name: string): void {
  const { ok, canceled, deadlineExceeded, internal, resourceExhausted } = StatusCode;
  // Of these two a message that does not parse or is too large.
  const isReceiveFailure = code === internal || code === resourceExhausted;
  if (isReceiveFailure || code === ok || code === canceled || code === deadlineExceeded) grpc.received[index]!++;
  if (!isReceiveFailure) return;
  if (name === 'Watch') network.streamFailures.with('receive', 'watch').value++;
  else if (name === 'LeaseKeepAlive') network.streamFailures.with('receive', 'lease-keepalive').value++;
}

function registerServices(
  router: Router,
  member: Member,
  config: ServerConfig,
  metrics: Metrics,
  watchStreams: { streams: number },
): void {
  registerKv(router, member, {
    txnOpsMax: config.txnOpsMax,
    requestBytesMax: config.requestBytesMax,
    afterCompaction: (revision, done) => member.afterCompaction(revision, done),
  });
  registerWatch(router, member, {
    fragmentBytes: config.requestBytesMax,
    progressIntervalMs: config.watchProgressNotifyIntervalMs,
    random: () => systemRandom.float(),
    setTimer: (delayMs, callback) => systemClock.setTimer(delayMs, callback),
    counters: watchStreams,
    metrics: metrics.watch,
  });
  registerHealth(router, member);
  registerLease(router, member);
  registerCluster(router, member);
  registerMaintenance(router, member, { etcdVersion, quotaBytes: config.quotaBytes ?? -1 });
}

/** What the system refuses of an address, in the words that Go has for it and scripts look for. */
function listenFailure(error: unknown): unknown {
  const { code, address, port } = error as { code?: string; address?: string; port?: number };
  const reason = code === undefined ? undefined : bindErrors.get(code);
  if (reason === undefined) return error;
  const where = port === undefined ? `listen unix ${address}` : `listen tcp ${address}:${port}`;
  return new FatalError(ExitCode.bug, `${where}: bind: ${reason}`);
}

const bindErrors: ReadonlyMap<string, string> = new Map([
  ['EADDRINUSE', 'address already in use'],
  ['EACCES', 'permission denied'],
  ['EADDRNOTAVAIL', 'cannot assign requested address'],
]);

function addressOf(url: MemberUrl): ListenAddress {
  if (url.socketPath !== '') return { path: url.socketPath };
  return { host: url.host === 'localhost' ? '127.0.0.1' : url.host, port: url.port };
}

function onSignals(
  config: ServerConfig,
  logger: Logger,
  listeners: readonly Listener[],
  grpc: GrpcServer,
  member: Member,
): void {
  let stopping = false;
  const stop = (signal: string): void => {
    if (stopping) return;
    stopping = true;
    logger.info(CALLER, 'received signal; shutting down', { signal });
    const fields = {
      name: config.name,
      'data-dir': config.dataDir,
      'advertise-peer-urls': urlTexts(config.advertisePeerUrls),
      'advertise-client-urls': urlTexts(config.advertiseClientUrls),
    };
    logger.info(CALLER, 'closing etcd server', fields);
    const finish = (): void => {
      grpc.destroy();
      member.stop(() => {
        logger.info(CALLER, 'closed etcd server', fields);
        logger.flush();
        process.exit(0);
      });
    };
    let finished = false;
    const finishOnce = (): void => {
      if (finished) return;
      finished = true;
      finish();
    };
    // Calls under way get a moment; streams that never end are cut.
    setTimeout(finishOnce, shutdownGraceMs);
    for (const listener of listeners) void listener.close();
    grpc.drain(finishOnce);
  };
  process.on('SIGTERM', () => stop('terminated'));
  process.on('SIGINT', () => stop('interrupt'));
}

await main();
