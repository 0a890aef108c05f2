// Every gRPC method of the client listener (ETCD-SURFACE.md §4), in one order: its index is where the router and the metrics
// keep what belongs to a method. Not the handlers.

export type GrpcType = 'unary' | 'server_stream' | 'client_stream' | 'bidi_stream';

export interface GrpcMethod {
  readonly service: string;
  readonly method: string;
  readonly type: GrpcType;
  /** As in the :path pseudo-header. */
  readonly path: string;
}

const services: readonly (readonly [service: string, methods: string])[] = [
  ['etcdserverpb.KV', 'Range RangeStream/server_stream Put DeleteRange Txn Compact'],
  ['etcdserverpb.Watch', 'Watch/bidi_stream'],
  ['etcdserverpb.Lease', 'LeaseGrant LeaseRevoke LeaseKeepAlive/bidi_stream LeaseTimeToLive LeaseLeases'],
  ['etcdserverpb.Cluster', 'MemberAdd MemberRemove MemberUpdate MemberList MemberPromote'],
  ['etcdserverpb.Maintenance', 'Alarm Status Defragment Hash HashKV Snapshot/server_stream MoveLeader Downgrade'],
  [
    'etcdserverpb.Auth',
    'AuthEnable AuthDisable AuthStatus Authenticate UserAdd UserGet UserList UserDelete UserChangePassword UserGrantRole UserRevokeRole RoleAdd RoleGet RoleList RoleDelete RoleGrantPermission RoleRevokePermission',
  ],
  ['v3lockpb.Lock', 'Lock Unlock'],
  ['v3electionpb.Election', 'Campaign Proclaim Leader Observe/server_stream Resign'],
  ['grpc.health.v1.Health', 'Check Watch/server_stream List'],
];

export const grpcMethods: readonly GrpcMethod[] = services.flatMap(([service, methods]) =>
  methods.split(' ').map((text) => {
    const [method = '', type = 'unary'] = text.split('/');
    return { service, method, type: type as GrpcType, path: `/${service}/${method}` };
  }),
);

const indexes: ReadonlyMap<string, number> = new Map(grpcMethods.map((method, index) => [method.path, index]));

/** The index of a path, or -1. */
export function grpcMethodIndex(path: string): number {
  return indexes.get(path) ?? -1;
}

/** Names of the gRPC status codes as go-grpc-prometheus labels them, by number. */
export const grpcCodeNames = [
  'OK',
  'Canceled',
  'Unknown',
  'InvalidArgument',
  'DeadlineExceeded',
  'NotFound',
  'AlreadyExists',
  'PermissionDenied',
  'ResourceExhausted',
  'FailedPrecondition',
  'Aborted',
  'OutOfRange',
  'Unimplemented',
  'Internal',
  'Unavailable',
  'DataLoss',
  'Unauthenticated',
] as const;
