// How the process ends when it is asked to: by a signal, or by its removal from the cluster. Leadership goes to another member, then the
// listeners close, calls under way get a moment, and the member writes what it has.

import { handOverMs } from '../cluster-limits.ts';
import { urlTexts } from '../config/member-url.ts';
import type { ServerConfig } from '../config/server-config.ts';
import type { GrpcServer } from '../grpc/server.ts';
import { shutdownGraceMs } from '../limits.ts';
import { hexId } from '../membership/cluster.ts';
import type { Member } from '../server/member.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Listeners } from './listeners.ts';

const CALLER = 'process/shutdown.ts';

/**
 * Until the member is ready nothing is acknowledged, so the process may just end. Without a handler it would not, where it is the
 * first of its PID namespace: a container's.
 */
export function onSignalsBeforeReady(logger: Logger): void {
  const end = (signal: string): void => {
    logger.info(CALLER, 'received signal before the member was ready; ending', { signal });
    logger.flush();
    process.exit(0);
  };
  process.on('SIGTERM', () => end('terminated'));
  process.on('SIGINT', () => end('interrupt'));
}

export interface ShutdownParts {
  readonly config: ServerConfig;
  readonly logger: Logger;
  readonly listeners: Listeners;
  readonly grpc: GrpcServer;
  readonly member: Member;
}

/** Of a member that is ready. */
export class Shutdown {
  private readonly parts: ShutdownParts;
  private readonly fields: Readonly<Record<string, string | string[]>>;
  private isStopping = false;
  private isFinishing = false;

  constructor(parts: ShutdownParts) {
    this.parts = parts;
    const { name, dataDir, advertisePeerUrls, advertiseClientUrls } = parts.config;
    this.fields = {
      name,
      'data-dir': dataDir,
      'advertise-peer-urls': urlTexts(advertisePeerUrls),
      'advertise-client-urls': urlTexts(advertiseClientUrls),
    };
  }

  /** In place of onSignalsBeforeReady(). */
  onSignals(): void {
    process.removeAllListeners('SIGTERM');
    process.removeAllListeners('SIGINT');
    process.on('SIGTERM', () => this.stop('terminated'));
    process.on('SIGINT', () => this.stop('interrupt'));
  }

  stop(signal: string | null): void {
    if (this.isStopping) return;
    this.isStopping = true;
    const { logger, listeners, grpc, member } = this.parts;
    if (signal !== null) logger.info(CALLER, 'received signal; shutting down', { signal });
    logger.info(CALLER, 'closing etcd server', this.fields);
    // Clients are served on until another member leads: then they find it at once.
    member.leadership.handOver(handOverMs, (error) => {
      if (error !== null) {
        const fields = { 'local-member-id': hexId(member.parts.id), error: error.message };
        logger.warn(CALLER, 'leadership transfer failed', fields);
      }
      listeners.close();
      grpc.drain(() => this.finish());
      // Calls under way get a moment; streams that never end are cut.
      setTimeout(() => {
        if (!this.isFinishing) {
          logger.info(CALLER, 'closing connections that are still open', { count: grpc.connectionCount });
        }
        this.finish();
      }, shutdownGraceMs);
    });
  }

  private finish(): void {
    if (this.isFinishing) return;
    this.isFinishing = true;
    const { logger, grpc, member } = this.parts;
    grpc.destroy();
    member.stop(() => {
      logger.info(CALLER, 'closed etcd server', this.fields);
      logger.flush();
      process.exit(0);
    });
  }
}
