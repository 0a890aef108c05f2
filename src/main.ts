// The process: flags → object graph → listen, signals, exit codes. Everything that it builds is described where it is defined.

import { existsSync, readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { Admin } from './admin/admin.ts';
import { memberSource } from './admin/member-source.ts';
import { ExitCode, FatalError } from './base/fatal.ts';
import { handOverMs, peerBodyBytesMax, peerDialBaseMs } from './cluster-limits.ts';
import { loadConfig } from './config/load.ts';
import { type MemberUrl, urlTexts } from './config/member-url.ts';
import type { LogConfig, ServerConfig } from './config/server-config.ts';
import { startingFields, startingMessage } from './config/starting-message.ts';
import { etcdVersion, keelsonVersion } from './config/version.ts';
import type { HttpHandler } from './grpc/http-exchange.ts';
import { Router } from './grpc/router.ts';
import { GrpcServer, grpcServerOptions } from './grpc/server.ts';
import { lastReading, systemClock } from './io/clock.ts';
import { startFailpoints } from './io/failpoint-http.ts';
import { type Http1Handler, type Http1Options, Http1Server } from './io/http1.ts';
import { notifyReady } from './io/init-daemon.ts';
import { type ConnectionTakers, type ListenAddress, Listener } from './io/listener.ts';
import { openLogSink } from './io/log-sink.ts';
import { memoryReturnOfProcess } from './io/memory-return.ts';
import { PeerClient } from './io/peer-client.ts';
import { PeerDialer } from './io/peer-dialer.ts';
import type { PeerExchange } from './io/peer-exchange.ts';
import { exitNow } from './io/process-exit.ts';
import { defaultHost, processReader } from './io/process-info.ts';
import { systemRandom } from './io/random.ts';
import { threadedWriter } from './io/wal-thread.ts';
import {
  bigReadLimits,
  grpcLimits,
  http1IgnoredBodyBytesMax,
  memoryReturnLookMs,
  memoryReturnWorthBytes,
  shutdownGraceMs,
} from './limits.ts';
import { HttpTransport } from './peer/http-transport.ts';
import { registerAuth } from './rpc/auth.ts';
import { BigReads } from './rpc/big-reads.ts';
import { callObserver } from './rpc/call-observer.ts';
import { registerCluster } from './rpc/cluster.ts';
import { registerHealth } from './rpc/health.ts';
import { Interceptor } from './rpc/interceptor.ts';
import { registerKv } from './rpc/kv.ts';
import { registerLease } from './rpc/lease.ts';
import { registerMaintenance } from './rpc/maintenance.ts';
import { RequestStats } from './rpc/request-stats.ts';
import { registerWatch } from './rpc/watch.ts';
import { startAutoCompaction } from './server/auto-compactor.ts';
import { databasePath, openMember } from './server/bootstrap.ts';
import { initialCheck } from './server/initial-check.ts';
import { memberLocalAddress } from './server/local-address.ts';
import type { Member } from './server/member.ts';
import { backendObserver, leaseCounters, memberCounters, scrapeMember, walObserver } from './server/observers.ts';
import { planStart } from './server/start-plan.ts';
import { Logger, parseLogLevel } from './telemetry/logger.ts';
import { Metrics } from './telemetry/metrics.ts';

const CALLER = 'main.ts';
/** What grpc-go lets a message exceed --max-request-bytes by, as etcd sets it. */
const GRPC_OVERHEAD_BYTES: number = 512 * 1024;

const wallMs = (): number => performance.timeOrigin + performance.now();

function newLogger(log: LogConfig): Logger {
  const sink = openLogSink(log.outputs.filter((output) => output !== '/dev/null'));
  return new Logger({ level: parseLogLevel(log.level) ?? 'info', format: log.format, sink, now: wallMs });
}

/** Once it is to be opened: what is read from it and found to be damaged does not know which file it came from. */
let databaseFile = '';

/** Ends the process for a reason that the log tells. Used from callbacks that have nobody to throw to, too. */
function die(logger: Logger, error: unknown): never {
  if (error instanceof FatalError) {
    // LMDB may have said something of its own on stderr, without an end of its line.
    if (error.exitCode === ExitCode.diskFull || error.exitCode === ExitCode.backendWrite) logger.breakLine();
    const isDamage = error.exitCode === ExitCode.backendCorrupt;
    const file = isDamage && databaseFile !== '' ? { database: databaseFile } : {};
    logger.fatal(CALLER, error.message, { 'exit-code': error.exitCode, ...file });
    logger.flush();
    exitNow(error.exitCode);
  }
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  logger.fatal(CALLER, 'a bug: the process ends so that nothing wrong is acknowledged', { error: stack });
  logger.flush();
  exitNow(ExitCode.bug);
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
  onSignalsBeforeReady(logger);
  const failpoints = await startFailpoints(process.env);
  // Before anything else: an address that is taken must leave the data directory as it was.
  const listeners = await bindAll(config, logger);
  const metrics = newMetrics(config);
  const router = new Router();
  // HTTP/2 requests that are no gRPC come to the same endpoints as HTTP/1.1's, once there is a member behind them.
  let onHttpRequest: HttpHandler = (_request, _body, respond) => respond(503, {}, Buffer.alloc(0));
  const interceptor = new Interceptor(
    () => member.leader !== 0n,
    () => member.isLearner,
  );
  const grpc = newGrpcServer(config, logger, router, metrics, interceptor, (request, body, respond) =>
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
  databaseFile = databasePath(config);
  const dialer = new PeerDialer(peerDialBaseMs + config.electionTimeoutMs, memberLocalAddress(config, logger));
  const peerRequests = new PeerClient({ dialer });
  const plan = await planStart({ config, logger, peerRequests, joinByDiscovery: joinerFor(config, logger) });
  let transport: HttpTransport | null = null;
  let end: () => void = () => process.exit(0);
  const member = openMember({
    config,
    plan,
    serverVersion: etcdVersion,
    logger,
    random: systemRandom,
    walWriter: threadedWriter(failpoints?.shared ?? null),
    walObserver: walObserver(metrics),
    backendObserver: backendObserver(metrics, () => systemClock.wallMs()),
    memberCounters: memberCounters(metrics),
    leaseCounters: leases,
    failpoints: failpoints?.shared ?? null,
    onFatal: (error) => die(logger, error),
    flushConnections: () => grpc.flushQueue.flushAll(),
    schedule: setImmediate,
    newTransport: (events, { id, clusterId }) => {
      transport = newTransport(config, logger, metrics, dialer, id, clusterId);
      transport.start(events);
      return transport;
    },
    peerRequests,
    onRemoved: (reason) => {
      logger.warn(CALLER, 'server error', { error: reason });
      logger.warn(CALLER, 'data-dir used by this member must be removed');
      end();
    },
  });
  await initialCheck(member, config.features.enabled('InitialCorruptCheck'));
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
  const memoryReturn = memoryReturnOfProcess(memoryReturnWorthBytes);
  if (memoryReturn !== null) setInterval(() => memoryReturn.look(), memoryReturnLookMs);
  setInterval(() => {
    if (interceptor.isLeaderless()) grpc.endRefused();
  }, config.electionTimeoutMs);
  serveBeforeReady(listeners, config, logger, admin, (exchange) => transport?.handle(exchange));
  await new Promise<void>((ready) => member.start(ready));
  startAutoCompaction(member, config.autoCompaction, (delayMs, callback) => systemClock.setTimer(delayMs, callback));
  // Whoever reads the ready line may send a signal at once.
  process.removeAllListeners('SIGTERM');
  process.removeAllListeners('SIGINT');
  end = onSignals(config, logger, listeners, grpc, member);
  serveClients(listeners, logger, grpc, admin);
  await tellInitDaemon(logger);
  await metrics.warmUp();
}

/** The client is loaded only where it is needed: its library takes a while. */
function joinerFor({ discovery }: ServerConfig, logger: Logger): (memberId: string, own: string) => Promise<string> {
  return async (memberId, own) => {
    const { joinByDiscovery } = await import('./client/discovery.ts');
    const { tls: files, ...options } = discovery!;
    const pem = (path: string): Buffer | undefined => (path === '' ? undefined : readFileSync(path));
    const tls =
      files === null
        ? null
        : {
            trustedCa: pem(files.caFile),
            certificate: pem(files.certFile),
            key: pem(files.keyFile),
            skipVerify: files.skipVerify,
          };
    return joinByDiscovery({ ...options, tls, logger }, memberId, own);
  };
}

function newGrpcServer(
  config: ServerConfig,
  logger: Logger,
  router: Router,
  metrics: Metrics,
  interceptor: Interceptor,
  onHttpRequest: HttpHandler,
): GrpcServer {
  const stats = new RequestStats(logger, config.warningUnaryRequestDurationMs, wallMs);
  return new GrpcServer(
    grpcServerOptions({
      router,
      clock: systemClock,
      schedule: setImmediate,
      observer: callObserver(metrics, router, stats, lastReading),
      gate: interceptor,
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

function newTransport(
  config: ServerConfig,
  logger: Logger,
  metrics: Metrics,
  dialer: PeerDialer,
  localId: bigint,
  clusterId: bigint,
): HttpTransport {
  return new HttpTransport({
    localId,
    clusterId,
    localUrls: urlTexts(config.advertisePeerUrls),
    serverVersion: etcdVersion,
    dialer,
    clock: systemClock,
    schedule: setImmediate,
    logger,
    network: metrics.network,
    timings: {
      readTimeoutMs: config.raftReadTimeoutMs,
      writeTimeoutMs: config.raftWriteTimeoutMs,
      heartbeatMs: config.heartbeatIntervalMs,
      electionMs: config.electionTimeoutMs,
    },
  });
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

interface Listeners {
  readonly peer: Listener;
  readonly client: Listener;
  /** Of --listen-client-http-urls; null without them: HTTP is served with gRPC. */
  readonly clientHttp: Listener | null;
  readonly metrics: Listener;
}

/** In etcd's order, and all of them or none. */
async function bindAll(config: ServerConfig, logger: Logger): Promise<Listeners> {
  const bound: Listener[] = [];
  const bind = async (urls: readonly MemberUrl[]): Promise<Listener> => {
    try {
      // etcd takes an address that is named twice for one.
      const addresses = new Map(urls.map((url) => [JSON.stringify(addressOf(url)), addressOf(url)]));
      const listener = await Listener.bind([...addresses.values()]);
      bound.push(listener);
      return listener;
    } catch (error) {
      for (const listener of bound) void listener.close();
      throw listenFailure(error);
    }
  };
  logger.info(CALLER, 'configuring peer listeners', { 'listen-peer-urls': urlTexts(config.listenPeerUrls) });
  const peer = await bind(config.listenPeerUrls);
  logger.info(CALLER, 'configuring client listeners', { 'listen-client-urls': urlTexts(config.listenClientUrls) });
  const client = await bind(config.listenClientUrls);
  const hasOwnHttp = config.listenClientHttpUrls.length > 0;
  const clientHttp = hasOwnHttp ? await bind(config.listenClientHttpUrls) : null;
  return { peer, client, clientHttp, metrics: await bind(config.listenMetricsUrls) };
}

function http1Taker(
  logger: Logger,
  handler: Http1Handler,
  peers: Partial<Http1Options> = {},
): ConnectionTakers['http1'] {
  const options = {
    handler,
    bodyBytesMax: http1IgnoredBodyBytesMax,
    onError: (error: unknown) => die(logger, error),
    ...peers,
  };
  const server = new Http1Server(options);
  return (socket, firstBytes) => server.accept(socket, firstBytes);
}

/** Other members and monitors are answered while this one still looks for a leader. */
function serveBeforeReady(
  { peer, metrics }: Listeners,
  config: ServerConfig,
  logger: Logger,
  admin: Admin,
  onPeerExchange: (exchange: PeerExchange) => void,
): void {
  const onlyHttp1 = (handler: Http1Handler, peers: Partial<Http1Options> = {}): ConnectionTakers => ({
    http2: null,
    http1: http1Taker(logger, handler, peers),
    tls: null,
  });
  const silenceMs = config.raftReadTimeoutMs;
  const peers = { onPeerExchange, bodyBytesMax: peerBodyBytesMax, silenceMs };
  peer.serve(
    onlyHttp1((request) => admin.handlePeer(request), peers),
    silenceMs,
  );
  for (const address of peer.addresses()) logger.info(CALLER, 'serving peer traffic', { address });
  metrics.serve(onlyHttp1((request) => admin.handleMetricsOnly(request)));
  for (const address of urlTexts(config.listenMetricsUrls)) logger.info(CALLER, 'serving metrics', { address });
}

function serveClients({ client, clientHttp }: Listeners, logger: Logger, grpc: GrpcServer, admin: Admin): void {
  const http1 = http1Taker(logger, (request) => admin.handle(request));
  const http2: ConnectionTakers['http2'] = (transport, { remote, local }) =>
    grpc.accept(transport, { id: ++connectionId, remoteAddress: remote, localAddress: local, tls: null });
  client.serve({ http2, http1: clientHttp === null ? http1 : null, tls: null });
  clientHttp?.serve({ http2: null, http1, tls: null });
  logger.info(CALLER, 'ready to serve client requests', { addresses: client.addresses() });
  const tell = (addresses: readonly string[], traffic: string): void => {
    for (const address of addresses) {
      logger.info(CALLER, 'serving client traffic insecurely; this is strongly discouraged!', { traffic, address });
    }
  };
  tell(client.addresses(), clientHttp === null ? 'grpc+http' : 'grpc');
  tell(clientHttp?.addresses() ?? [], 'http');
}

async function tellInitDaemon(logger: Logger): Promise<void> {
  logger.info(CALLER, 'notifying init daemon');
  const error = await notifyReady(process.env);
  if (error === null) logger.info(CALLER, 'successfully notified init daemon');
  else logger.error(CALLER, 'failed to notify systemd for readiness', { error });
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

function registerServices(
  router: Router,
  member: Member,
  config: ServerConfig,
  metrics: Metrics,
  watchStreams: { streams: number },
): void {
  const setTimer = (delayMs: number, callback: () => void): unknown => systemClock.setTimer(delayMs, callback);
  const { header, nowMs } = member.parts;
  const bigReads = new BigReads(bigReadLimits, header, { schedule: setImmediate, setTimer, nowMs });
  registerKv(router, member, {
    bigReads,
    txnOpsMax: config.txnOpsMax,
    requestBytesMax: config.requestBytesMax,
    afterCompaction: (revision, done) => member.afterCompaction(revision, done),
  });
  registerWatch(router, member, {
    fragmentBytes: config.requestBytesMax,
    progressIntervalMs: config.watchProgressNotifyIntervalMs,
    random: () => systemRandom.float(),
    setTimer,
    counters: watchStreams,
    metrics: metrics.watch,
  });
  registerHealth(router, member);
  registerLease(router, member, bigReads);
  registerCluster(router, member);
  registerAuth(router, member);
  registerMaintenance(router, member, { etcdVersion, quotaBytes: config.quotaBytes ?? -1, setTimer });
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
  ['ENOENT', 'no such file or directory'],
]);

function addressOf(url: MemberUrl): ListenAddress {
  if (url.socketPath !== '') return { path: url.socketPath };
  return { host: url.host === 'localhost' ? '127.0.0.1' : url.host, port: url.port };
}

/**
 * Until the member is ready nothing is acknowledged, so the process may just end. Without a handler it would not, where it is the
 * first of its PID namespace: a container's.
 */
function onSignalsBeforeReady(logger: Logger): void {
  const end = (signal: string): void => {
    logger.info(CALLER, 'received signal before the member was ready; ending', { signal });
    logger.flush();
    process.exit(0);
  };
  process.on('SIGTERM', () => end('terminated'));
  process.on('SIGINT', () => end('interrupt'));
}

function onSignals(
  config: ServerConfig,
  logger: Logger,
  { peer, client, clientHttp, metrics }: Listeners,
  grpc: GrpcServer,
  member: Member,
): () => void {
  let stopping = false;
  const stop = (signal: string | null): void => {
    if (stopping) return;
    stopping = true;
    if (signal !== null) logger.info(CALLER, 'received signal; shutting down', { signal });
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
    // Clients are served on until another member leads: then they find it at once.
    member.leadership.handOver(handOverMs, (error) => {
      if (error !== null) logger.warn(CALLER, 'leadership transfer failed', { error: error.message });
      for (const listener of [client, clientHttp, metrics, peer]) void listener?.close();
      grpc.drain(finishOnce);
      // Calls under way get a moment; streams that never end are cut.
      setTimeout(() => {
        if (!finished) logger.info(CALLER, 'closing connections that are still open', { count: grpc.connectionCount });
        finishOnce();
      }, shutdownGraceMs);
    });
  };
  process.on('SIGTERM', () => stop('terminated'));
  process.on('SIGINT', () => stop('interrupt'));
  return () => stop(null);
}

await main();
