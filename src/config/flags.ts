// Every server flag of etcd 3.7 (server/embed/config.go AddFlags, server/etcdmain/config.go) with type, default and meaning.
// The one table behind the command line, ETCD_* and KEELSON_* variables, the configuration file and --help. Not the parser
// (flag-set.ts), and not what the values must satisfy together (validate.ts).

/** How a flag's text is read. Sizes matter for the errors: uint is Go's 64-bit one. */
export type FlagType =
  | 'string'
  | 'bool'
  | 'int'
  | 'uint'
  | 'uint32'
  | 'duration'
  /** Comma-separated member URLs. */
  | 'urls'
  /** Comma-separated origins, or *. */
  | 'origins'
  /** Comma-separated words in the given order. */
  | 'strings'
  /** Comma-separated words, sorted and without repeats. */
  | 'set'
  /** One of `choices`. */
  | 'choice'
  /** A list out of `choices`. */
  | 'choices'
  | 'gates'
  /** Accepted and dropped, as etcd does with flags of its v2. */
  | 'ignored';

export interface Flag {
  readonly name: string;
  readonly type: FlagType;
  /** As text, read like a given value. '' is the empty list for list types. */
  readonly byDefault: string;
  readonly group: FlagGroup;
  readonly meaning: string;
  readonly choices?: readonly string[];
  /** Its key in a configuration file: a path, or null when a file cannot carry it. The name when absent. */
  readonly fileKey?: string | null;
}

/** The groups of --help, in its order. */
export const flagGroups = [
  'Member',
  'Clustering',
  'Security',
  'Auth',
  'Profiling and monitoring',
  'Logging',
  'Distributed tracing',
  'Tuning',
  'Unsafe',
  'Ignored',
] as const;
export type FlagGroup = (typeof flagGroups)[number];

type Row = readonly [name: string, type: FlagType, byDefault: string, meaning: string, extra?: Partial<Flag>];

function group(name: FlagGroup, rows: readonly Row[]): Flag[] {
  return rows.map(([flag, type, byDefault, meaning, extra]) => ({
    name: flag,
    type,
    byDefault,
    group: name,
    meaning,
    ...extra,
  }));
}

const rotationDefault = '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}';
const clientTls = (key: string): Partial<Flag> => ({ fileKey: `client-transport-security.${key}` });
const peerTls = (key: string): Partial<Flag> => ({ fileKey: `peer-transport-security.${key}` });
const discovery = (key: string): Partial<Flag> => ({ fileKey: `discovery-config.${key}` });
const notInFile: Partial<Flag> = { fileKey: null };

const memberFlags: Flag[] = group('Member', [
  ['name', 'string', 'default', 'Name of this member; finds its own entry in --initial-cluster.'],
  ['data-dir', 'string', '', "Where the member keeps its data; '<name>.etcd' when empty."],
  ['wal-dir', 'string', '', 'A separate place for the write-ahead log, such as a disk of its own.'],
  ['snapshot-count', 'uint', '10000', 'Applied entries after which the raft log is compacted.'],
  ['snapshot-catchup-entries', 'uint', '5000', 'Entries kept behind that point for followers that lag.'],
  ['max-snapshots', 'uint', '5', 'Old raft snapshot files to keep, 0 for all. Deprecated.'],
  ['max-wals', 'uint', '5', 'Released log segments to keep, 0 for all.'],
  ['heartbeat-interval', 'uint', '100', 'Milliseconds between heartbeats of the leader.'],
  ['election-timeout', 'uint', '1000', 'Milliseconds without a heartbeat until an election; 5 heartbeats to 50000.'],
  ['initial-election-tick-advance', 'bool', 'true', 'Skip most of the first election timeout at start.'],
  ['listen-peer-urls', 'urls', 'http://localhost:2380', 'URLs to listen on for other members.'],
  [
    'listen-client-urls',
    'urls',
    'http://localhost:2379',
    'URLs to listen on for clients: gRPC, and HTTP unless the next flag is set.',
  ],
  [
    'listen-client-http-urls',
    'urls',
    '',
    'URLs for the HTTP endpoints of clients only; the client URLs then serve gRPC only.',
  ],
  ['listen-metrics-urls', 'urls', '', 'More URLs that serve /metrics, /health, /livez and /readyz only.'],
  [
    'quota-backend-bytes',
    'int',
    '0',
    'Size of the database that raises the NOSPACE alarm; 0 for 2 GiB, negative for no limit.',
  ],
  ['backend-bbolt-freelist-type', 'string', 'map', 'Accepted for compatibility; there is no bbolt in here.'],
  ['backend-batch-interval', 'duration', '0s', 'Longest time between two commits of the backend; 0 for 100ms.'],
  ['backend-batch-limit', 'int', '0', 'Most operations in one commit of the backend; 0 for 10000.'],
  ['max-txn-ops', 'uint', '128', 'Most operations in a transaction.'],
  ['max-request-bytes', 'uint', '1572864', 'Largest request of a client.'],
  ['max-concurrent-streams', 'uint32', '4294967295', 'Streams that one client connection may have open.'],
  ['grpc-keepalive-min-time', 'duration', '5s', 'Clients that ping more often are disconnected.'],
  ['grpc-keepalive-interval', 'duration', '2h', 'How often the server pings a quiet client; 0 for never.'],
  ['grpc-keepalive-timeout', 'duration', '20s', 'How long it waits for the answer; 0 for never.'],
  ['socket-reuse-port', 'bool', 'false', 'Set SO_REUSEPORT on listeners.', { fileKey: 'socket-options.reuse-port' }],
  [
    'socket-reuse-address',
    'bool',
    'false',
    'Set SO_REUSEADDR on listeners.',
    { fileKey: 'socket-options.reuse-address' },
  ],
  ['enable-grpc-gateway', 'bool', 'true', 'Serve the JSON gateway under /v3/.'],
  ['raft-read-timeout', 'duration', '5s', 'Read timeout of connections between members, at least 5s.', notInFile],
  ['raft-write-timeout', 'duration', '5s', 'Write timeout of connections between members, at least 5s.', notInFile],
  ['memory-mlock', 'bool', 'false', 'Lock the memory of the process in RAM.'],
  ['feature-gates', 'gates', '', 'Feature gates to switch, as Name=true,Name=false.'],
  ['config-file', 'string', '', 'YAML or JSON file; with it all other flags and variables are ignored.', notInFile],
  ['version', 'bool', 'false', 'Print the versions and exit.', notInFile],
]);

const clusteringFlags: Flag[] = group('Clustering', [
  [
    'initial-advertise-peer-urls',
    'urls',
    'http://localhost:2380',
    'Peer URLs of this member that the others are told.',
  ],
  ['advertise-client-urls', 'urls', 'http://localhost:2379', 'Client URLs of this member that clients are told.'],
  ['initial-cluster', 'string', 'default=http://localhost:2380', 'The first members, as name=url,name=url.'],
  [
    'initial-cluster-state',
    'choice',
    'new',
    "'new' to found the cluster, 'existing' to join it.",
    { choices: ['new', 'existing'] },
  ],
  ['initial-cluster-token', 'string', 'etcd-cluster', 'Mixed into the ids, so that clusters of equal URLs differ.'],
  ['discovery-endpoints', 'set', '', 'Endpoints of a v3 discovery service.', discovery('endpoints')],
  ['discovery-token', 'string', '', 'Its token for this cluster.', discovery('token')],
  ['discovery-dial-timeout', 'duration', '2s', 'Its dial timeout.', discovery('dial-timeout')],
  ['discovery-request-timeout', 'duration', '5s', 'Its request timeout.', discovery('request-timeout')],
  ['discovery-keepalive-time', 'duration', '2s', 'Its keepalive time.', discovery('keepalive-time')],
  ['discovery-keepalive-timeout', 'duration', '6s', 'Its keepalive timeout.', discovery('keepalive-timeout')],
  ['discovery-insecure-transport', 'bool', 'true', 'Talk to it without TLS.', discovery('secure.insecure-transport')],
  [
    'discovery-insecure-skip-tls-verify',
    'bool',
    'false',
    'Do not verify its certificate.',
    discovery('secure.insecure-skip-tls-verify'),
  ],
  ['discovery-cert', 'string', '', 'Client certificate for it.', discovery('secure.cert')],
  ['discovery-key', 'string', '', 'Key of that certificate.', discovery('secure.key')],
  ['discovery-cacert', 'string', '', 'CA that its certificate is verified with.', discovery('secure.cacert')],
  ['discovery-user', 'string', '', 'User for it, as name[:password].', discovery('auth.username')],
  ['discovery-password', 'string', '', 'Password of that user.', discovery('auth.password')],
  [
    'discovery-fallback',
    'choice',
    'exit',
    "What to do when discovery fails; only 'exit' is left.",
    { choices: ['exit', 'proxy'], fileKey: null },
  ],
  ['discovery-srv', 'string', '', 'DNS domain whose SRV records name the members.'],
  ['discovery-srv-name', 'string', '', 'Suffix of the SRV service names.'],
  ['strict-reconfig-check', 'bool', 'true', 'Refuse membership changes that would lose the quorum.'],
  ['pre-vote', 'bool', 'true', 'Ask before an election, so that a returning member does not disturb.'],
  [
    'auto-compaction-retention',
    'string',
    '0',
    'History to keep: hours or a duration (periodic), a count (revision); 0 for all.',
  ],
  ['auto-compaction-mode', 'string', 'periodic', "'periodic' or 'revision'."],
  [
    'v2-deprecation',
    'choices',
    '',
    'Accepted and without effect. Deprecated.',
    { choices: ['write-only', 'write-only-skip-check', 'write-only-drop-data', 'gone'] },
  ],
]);

const securityFlags: Flag[] = group('Security', [
  ['cert-file', 'string', '', 'Server certificate for clients.', clientTls('cert-file')],
  ['key-file', 'string', '', 'Its key.', clientTls('key-file')],
  ['client-cert-auth', 'bool', 'false', 'Require certificates of clients.', clientTls('client-cert-auth')],
  ['client-cert-file', 'string', '', 'Certificate for own client connections.', clientTls('client-cert-file')],
  ['client-key-file', 'string', '', 'Its key.', clientTls('client-key-file')],
  ['client-crl-file', 'string', '', 'Revoked client certificates.', notInFile],
  [
    'client-cert-allowed-hostname',
    'strings',
    '',
    'Names that client certificates may carry.',
    clientTls('allowed-hostname'),
  ],
  ['trusted-ca-file', 'string', '', 'CA for client certificates.', clientTls('trusted-ca-file')],
  ['auto-tls', 'bool', 'false', 'TLS for clients with a certificate made at start.', clientTls('auto-tls')],
  ['peer-cert-file', 'string', '', 'Server certificate for members.', peerTls('cert-file')],
  ['peer-key-file', 'string', '', 'Its key.', peerTls('key-file')],
  ['peer-client-cert-auth', 'bool', 'false', 'Require certificates of members.', peerTls('client-cert-auth')],
  ['peer-client-cert-file', 'string', '', 'Certificate for own connections to members.', peerTls('client-cert-file')],
  ['peer-client-key-file', 'string', '', 'Its key.', peerTls('client-key-file')],
  ['peer-trusted-ca-file', 'string', '', 'CA for certificates of members.', peerTls('trusted-ca-file')],
  [
    'peer-cert-allowed-cn',
    'strings',
    '',
    'Common names that certificates of members may carry.',
    peerTls('allowed-cn'),
  ],
  [
    'peer-cert-allowed-hostname',
    'strings',
    '',
    'Names that certificates of members may carry.',
    peerTls('allowed-hostname'),
  ],
  ['peer-auto-tls', 'bool', 'false', 'TLS between members with certificates made at start.', peerTls('auto-tls')],
  ['peer-crl-file', 'string', '', 'Revoked certificates of members.', notInFile],
  [
    'peer-skip-client-san-verification',
    'bool',
    'false',
    'Do not check names in certificates of members.',
    peerTls('skip-client-san-verification'),
  ],
  ['self-signed-cert-validity', 'uint', '1', 'Years that certificates made at start are valid.'],
  ['cipher-suites', 'strings', '', 'TLS 1.2 cipher suites by IANA names; empty for the usual ones.'],
  ['tls-min-version', 'string', 'TLS1.2', 'Lowest TLS version: TLS1.2 or TLS1.3.'],
  ['tls-max-version', 'string', '', 'Highest TLS version; empty for the newest.'],
  ['cors', 'origins', '*', 'Origins that browsers may call from.'],
  ['host-whitelist', 'set', '*', 'Host names that plain HTTP requests may ask for.'],
]);

const otherFlags: Flag[] = [
  ...group('Auth', [
    ['auth-token', 'string', 'simple', "'simple' or 'jwt,pub-key=..,priv-key=..,sign-method=..,ttl=..'."],
    ['bcrypt-cost', 'uint', '10', 'Cost of password hashes, 4 to 31.'],
    ['auth-token-ttl', 'uint', '300', 'Seconds that a simple token lives after its last use.'],
  ]),
  ...group('Profiling and monitoring', [
    ['enable-pprof', 'bool', 'false', 'Serve profiles under /debug/pprof/.'],
    ['metrics', 'string', 'basic', "'extensive' adds latency histograms of every gRPC method."],
  ]),
  ...group('Logging', [
    ['logger', 'string', 'zap', "Only 'zap' exists."],
    ['log-outputs', 'set', 'default', "'stderr', 'stdout', 'default' or files."],
    ['log-level', 'string', 'info', 'debug, info, warn, error, panic or fatal.'],
    ['log-format', 'string', 'json', 'json or console.'],
    ['enable-log-rotation', 'bool', 'false', 'Rotate the one file in --log-outputs.'],
    ['log-rotation-config-json', 'string', rotationDefault, 'How to rotate it.'],
    ['warning-unary-request-duration', 'duration', '300ms', 'Requests that take longer are logged.'],
  ]),
  ...group('Distributed tracing', [
    ['enable-distributed-tracing', 'bool', 'false', 'Send OpenTelemetry traces.'],
    ['distributed-tracing-address', 'string', 'localhost:4317', 'Address of the collector.'],
    ['distributed-tracing-service-name', 'string', 'etcd', 'Service name of the traces.'],
    ['distributed-tracing-instance-id', 'string', '', 'Instance id of the traces.'],
    ['distributed-tracing-sampling-rate', 'int', '0', 'Traces sampled in a million.'],
  ]),
  ...group('Tuning', [
    ['corrupt-check-time', 'duration', '0s', 'How often members are compared; 0 for never.'],
    ['compact-hash-check-time', 'duration', '1m0s', 'How often compaction hashes of members are compared.'],
    ['compaction-batch-limit', 'int', '0', 'Revisions removed in one batch of a compaction; 0 for 1000.'],
    ['compaction-sleep-interval', 'duration', '0s', 'Pause between such batches; 0 for 10ms.'],
    ['watch-progress-notify-interval', 'duration', '0s', 'How often quiet watchers are told the revision; 0 for 10m.'],
    ['warning-apply-duration', 'duration', '100ms', 'Entries that take longer to apply are logged.'],
    ['bootstrap-defrag-threshold-megabytes', 'uint', '0', 'Defragment at start when it frees this much; 0 for never.'],
    ['max-learners', 'int', '1', 'Learners that the cluster may have.'],
    ['downgrade-check-time', 'duration', '5s', 'How often the downgrade state is looked at.'],
  ]),
  ...group('Unsafe', [
    ['unsafe-no-fsync', 'bool', 'false', 'Never sync: a crash of the machine loses data.'],
    ['force-new-cluster', 'bool', 'false', 'Make this member the only one of its cluster.'],
  ]),
];

const ignoredNames: readonly string[] = [
  'cluster-active-size',
  'cluster-remove-delay',
  'cluster-sync-interval',
  'config',
  'force',
  'max-result-buffer',
  'max-retry-attempts',
  'peer-heartbeat-interval',
  'peer-election-timeout',
  'retry-interval',
  'snapshot',
  'v',
  'vv',
  'test.coverprofile',
  'test.outputdir',
];

const ignoredFlags: Flag[] = group(
  'Ignored',
  ignoredNames.map((name): Row => [name, 'ignored', '', 'A flag of etcd v2, without effect.', notInFile]),
);

export const flags: readonly Flag[] = [
  ...memberFlags,
  ...clusteringFlags,
  ...securityFlags,
  ...otherFlags,
  ...ignoredFlags,
];

export const flagsByName: ReadonlyMap<string, Flag> = new Map(flags.map((flag) => [flag.name, flag]));

/** Flags whose use is answered with a warning, with etcd's words. */
export const deprecatedFlags: ReadonlyMap<string, string> = new Map([
  ['max-snapshots', '--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.'],
  [
    'v2-deprecation',
    '--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.',
  ],
]);
