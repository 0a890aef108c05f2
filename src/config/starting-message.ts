// The fields of etcd's long line "starting an etcd server" (server/embed/etcd.go print): scripts and people read settings from
// it. Fields about parts that do not exist here (Go, v2) are left out.

import { durationText } from './go-value.ts';
import { formatInitialCluster } from './initial-cluster.ts';
import { urlTexts } from './member-url.ts';
import type { NoticeField } from './notice.ts';
import type { ServerConfig } from './server-config.ts';
import { etcdVersion, gitSha, keelsonVersion } from './version.ts';

export const startingMessage: string = 'starting an etcd server';

export function startingFields(
  config: ServerConfig,
  runtime: {
    readonly nodeVersion: string;
    readonly platform: string;
    readonly arch: string;
    readonly cpuCount: number;
  },
  memberInitialized: boolean,
): Record<string, NoticeField> {
  return {
    'etcd-version': etcdVersion,
    'keelson-version': keelsonVersion,
    'git-sha': gitSha,
    'node-version': runtime.nodeVersion,
    os: runtime.platform,
    arch: runtime.arch,
    'max-cpu-available': runtime.cpuCount,
    'member-initialized': memberInitialized,
    ...memberFields(config),
    ...limitFields(config),
  };
}

function memberFields(config: ServerConfig): Record<string, NoticeField> {
  return {
    name: config.name,
    'data-dir': config.dataDir,
    'wal-dir': config.walDir,
    'wal-dir-dedicated': config.walDir,
    'member-dir': `${config.dataDir}/member`,
    'force-new-cluster': config.forceNewCluster,
    'heartbeat-interval': durationText(config.heartbeatIntervalMs),
    'election-timeout': durationText(config.electionTickCount * config.heartbeatIntervalMs),
    'initial-election-tick-advance': config.initialElectionTickAdvance,
    'snapshot-count': config.snapshotEntryCount,
    'max-wals': config.walFilesMax,
    'max-snapshots': config.snapshotFilesMax,
    'snapshot-catchup-entries': config.snapshotCatchupEntryCount,
    'initial-advertise-peer-urls': urlTexts(config.advertisePeerUrls),
    'listen-peer-urls': urlTexts(config.listenPeerUrls),
    'advertise-client-urls': urlTexts(config.advertiseClientUrls),
    'listen-client-urls': urlTexts(config.listenClientUrls),
    'listen-metrics-urls': urlTexts(config.listenMetricsUrls),
    cors: config.cors,
    'host-whitelist': config.hostWhitelist,
    'initial-cluster': formatInitialCluster(config.initialCluster),
    'initial-cluster-state': config.initialClusterState,
    'initial-cluster-token': config.initialClusterToken,
  };
}

function limitFields(config: ServerConfig): Record<string, NoticeField> {
  const compaction = config.autoCompaction;
  const retentionMs = compaction.mode === 'periodic' ? compaction.retentionMs : 0;
  return {
    'quota-backend-bytes': config.quotaBytes ?? -1,
    'max-request-bytes': config.requestBytesMax,
    'max-concurrent-streams': config.concurrentStreamsMax,
    'pre-vote': config.preVote,
    'feature-gates': config.features.format(),
    'initial-corrupt-check': config.features.enabled('InitialCorruptCheck'),
    'corrupt-check-time-interval': durationText(config.corruptCheckIntervalMs),
    'compact-check-time-interval': durationText(config.compactHashCheckIntervalMs),
    'auto-compaction-mode': compaction.mode === 'off' ? 'periodic' : compaction.mode,
    'auto-compaction-retention':
      compaction.mode === 'revision' ? String(compaction.retentionRevisions) : durationText(retentionMs),
    'discovery-token': config.discovery?.token ?? '',
    'discovery-endpoints': config.discovery?.endpoints.join(',') ?? '',
    'discovery-user': config.discovery?.user?.name ?? '',
    'downgrade-check-interval': durationText(config.downgradeCheckIntervalMs),
    'max-learners': config.maxLearners,
  };
}
