// The process: flags → object graph → listen. Everything that it builds is described where it is defined.

import { existsSync, readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { loadConfig } from './config/load.ts';
import { urlTexts } from './config/member-url.ts';
import type { LogConfig, ServerConfig } from './config/server-config.ts';
import { startingFields, startingMessage } from './config/starting-message.ts';
import { etcdVersion, keelsonVersion } from './config/version.ts';
import { grpcLimits } from './connection-limits.ts';
import type { HttpHandler } from './grpc/http-exchange.ts';
import { Router } from './grpc/router.ts';
import type { GrpcServer } from './grpc/server.ts';
import { evenWallMs, systemClock } from './io/clock.ts';
import { startFailpoints } from './io/failpoint-http.ts';
import { notifyReady } from './io/init-daemon.ts';
import { openLogSink } from './io/log-sink.ts';
import { memoryReturnOfProcess } from './io/memory-return.ts';
import { defaultHost, processReader } from './io/process-info.ts';
import { systemRandom } from './io/random.ts';
import { threadedWriter } from './io/wal-thread.ts';
import { memoryReturnLookMs, memoryReturnWorthBytes } from './limits.ts';
import { hexId } from './membership/cluster.ts';
import { discoveryJoiner } from './process/discovery-joiner.ts';
import { FatalExit } from './process/fatal-exit.ts';
import { newGrpcServer, registerServices } from './process/grpc-services.ts';
import { http2Endpoints, newAdmin } from './process/http-endpoints.ts';
import { Listeners } from './process/listeners.ts';
import { PeerTraffic } from './process/peer-traffic.ts';
import { onSignalsBeforeReady, Shutdown } from './process/shutdown.ts';
import { Interceptor } from './rpc/interceptor.ts';
import { startAutoCompaction } from './server/auto-compactor.ts';
import { databasePath, openMember } from './server/bootstrap.ts';
import { initialCheck } from './server/initial-check.ts';
import type { Member } from './server/member.ts';
import { backendObserver, leaseCounters, memberCounters, scrapeMember, walObserver } from './server/observers.ts';
import { planStart } from './server/start-plan.ts';
import { Logger, parseLogLevel } from './telemetry/logger.ts';
import { Metrics } from './telemetry/metrics.ts';

const CALLER = 'main.ts';

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
  const fatalExit = new FatalExit(logger);
  process.on('uncaughtException', (error) => fatalExit.end(error));
  process.on('unhandledRejection', (error) => fatalExit.end(error));
  try {
    await serve(loaded.config, logger, fatalExit);
  } catch (error) {
    fatalExit.end(error);
  }
}

function newLogger(log: LogConfig): Logger {
  const sink = openLogSink(log.outputs.filter((output) => output !== '/dev/null'));
  return new Logger({ level: parseLogLevel(log.level) ?? 'info', format: log.format, sink, now: evenWallMs });
}

async function serve(config: ServerConfig, logger: Logger, fatalExit: FatalExit): Promise<void> {
  onSignalsBeforeReady(logger);
  const failpoints = await startFailpoints(process.env);
  // Before anything else: an address that is taken must leave the data directory as it was.
  const listeners = await Listeners.bind(config, logger, fatalExit);
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
  logStarting(config, logger);
  const leases = leaseCounters(metrics);
  fatalExit.databaseFile = databasePath(config);
  const peers = new PeerTraffic(config, logger, metrics);
  const joinByDiscovery = discoveryJoiner(config, logger, readFileSync);
  const plan = await planStart({ config, logger, peerRequests: peers.requests, joinByDiscovery });
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
    onFatal: (error) => fatalExit.end(error),
    flushConnections: () => grpc.flushQueue.flushAll(),
    schedule: setImmediate,
    newTransport: (events, ids) => peers.startTransport(events, ids),
    peerRequests: peers.requests,
    onRemoved: (reason) => {
      logger.warn(CALLER, 'server error', { error: reason });
      logger.warn(CALLER, 'data-dir used by this member must be removed');
      end();
    },
  });
  await initialCheck(member, config.features.enabled('InitialCorruptCheck'));
  metrics.onScrape(() => scrapeMember(metrics, member, leases));
  registerServices(router, member, config, metrics);
  const admin = newAdmin(config, logger, metrics, member);
  onHttpRequest = http2Endpoints(admin);
  startTicks(config, member, grpc, interceptor);
  listeners.servePeersAndMetrics(admin, (exchange) => peers.handle(exchange));
  logServing(config, logger, member);
  await new Promise<void>((ready) => member.start(ready));
  startAutoCompaction(member, config.autoCompaction, (delayMs, callback) => systemClock.setTimer(delayMs, callback));
  // Whoever reads the ready line may send a signal at once.
  const shutdown = new Shutdown({ config, logger, listeners, grpc, member });
  shutdown.onSignals();
  end = () => shutdown.stop(null);
  listeners.serveClients(grpc, admin);
  await tellInitDaemon(logger);
  await metrics.warmUp();
}

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

function logStarting(config: ServerConfig, logger: Logger): void {
  const runtime = {
    nodeVersion: process.version,
    platform: process.platform,
    arch: process.arch,
    cpuCount: cpus().length,
  };
  const isInitialized = existsSync(`${config.dataDir}/member`);
  logger.info(CALLER, isInitialized ? 'server has already been initialized' : 'Initialize and start etcd server', {
    'data-dir': config.dataDir,
    'dir-type': isInitialized ? 'member' : 'empty',
  });
  logger.info(CALLER, startingMessage, startingFields(config, runtime, isInitialized));
}

/** Clients are accepted, and served once there is a leader: as etcd means it. */
function logServing(config: ServerConfig, logger: Logger, member: Member): void {
  logger.info(CALLER, 'now serving peer/client/metrics', {
    'local-member-id': hexId(member.parts.id),
    'initial-advertise-peer-urls': urlTexts(config.advertisePeerUrls),
    'listen-peer-urls': urlTexts(config.listenPeerUrls),
    'advertise-client-urls': urlTexts(config.advertiseClientUrls),
    'listen-client-urls': urlTexts(config.listenClientUrls),
    'listen-metrics-urls': urlTexts(config.listenMetricsUrls),
  });
}

function startTicks(config: ServerConfig, member: Member, grpc: GrpcServer, interceptor: Interceptor): void {
  setInterval(() => member.tick(), config.heartbeatIntervalMs);
  setInterval(() => grpc.tick(), grpcLimits.timerTickMs);
  const memoryReturn = memoryReturnOfProcess(memoryReturnWorthBytes);
  if (memoryReturn !== null) setInterval(() => memoryReturn.look(), memoryReturnLookMs);
  setInterval(() => {
    if (interceptor.isLeaderless()) grpc.endRefused();
  }, config.electionTimeoutMs);
}

async function tellInitDaemon(logger: Logger): Promise<void> {
  logger.info(CALLER, 'notifying init daemon');
  const error = await notifyReady(process.env);
  if (error === null) logger.info(CALLER, 'successfully notified init daemon');
  else logger.error(CALLER, 'failed to notify systemd for readiness', { error });
}

await main();
