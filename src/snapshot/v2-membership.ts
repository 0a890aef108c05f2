// raftpb.Snapshot.data as etcd fills it: the membership in the shape of its v2 store, JSON. 3.7 only writes it; 3.5 and a 3.6 that starts
// from it read it back, and fail when it is no store. What the store keeps beside the tree (a history of events that nobody watches,
// counters of requests) is there and empty. Made of the entries of etcd's buckets, so that it is of the same commit as the rest.
//
//   /0/members/<hex id>/raftAttributes     {"peerURLs":[..],"isLearner":true}
//   /0/members/<hex id>/attributes         {"name":"..","clientURLs":[..]}   only of a member that has published its client URLs
//   /0/removed_members/<hex id>            empty
//   /0/version                             3.7.0
//   /1                                     empty: once the keys of v2

import { ClusterKey, decodeMember, decodeMemberKey, encodeMemberAttributes, encodeRaftAttributes } from './schema.ts';

type Entry = readonly [key: Buffer, value: Buffer];

export interface MembershipEntries {
  readonly members: readonly Entry[];
  readonly membersRemoved: readonly Entry[];
  readonly cluster: readonly Entry[];
}

/** etcd's fixed size of the history. */
const HISTORY_EVENTS = 1000;
const NEVER = '0001-01-01T00:00:00Z';

interface Node {
  readonly Path: string;
  readonly CreatedIndex: number;
  readonly ModifiedIndex: number;
  readonly ExpireTime: string;
  readonly Value: string;
  readonly Children: Record<string, Node> | null;
}

class Tree {
  index = 0;
  readonly root: Node = newNode('/', 0, '', {});

  /** Makes the file with the folders that it lies in. */
  put(path: string, value: string): void {
    this.index++;
    const names = path.split('/').slice(1);
    const last = names.pop()!;
    let folder = this.root;
    for (const name of names) folder = this.folder(folder, name);
    folder.Children![last] = newNode(childPath(folder, last), this.index, value, null);
  }

  /** With its parent there. */
  folder(parent: Node, name: string): Node {
    const children = parent.Children!;
    children[name] ??= newNode(childPath(parent, name), this.index, '', {});
    return children[name];
  }
}

function newNode(path: string, index: number, value: string, children: Record<string, Node> | null): Node {
  return {
    Path: path,
    CreatedIndex: index,
    ModifiedIndex: index,
    ExpireTime: NEVER,
    Value: value,
    Children: children,
  };
}

function childPath(parent: Node, name: string): string {
  return parent.Path === '/' ? `/${name}` : `${parent.Path}/${name}`;
}

/** Null: one of the entries is no member. */
export function encodeV2Membership(entries: MembershipEntries): Buffer | null {
  const tree = new Tree();
  tree.folder(tree.root, '0');
  tree.folder(tree.root, '1');
  let created = 0;
  let set = 0;
  for (const [, value] of entries.members) {
    const member = decodeMember(value);
    if (member === null) return null;
    const path = `/0/members/${member.id.toString(16)}`;
    tree.put(`${path}/raftAttributes`, encodeRaftAttributes(member));
    created++;
    if (member.clientUrls.length === 0) continue;
    tree.put(`${path}/attributes`, encodeMemberAttributes(member));
    set++;
  }
  for (const [key] of entries.membersRemoved) {
    const id = decodeMemberKey(key);
    if (id === null) return null;
    tree.put(`/0/removed_members/${id.toString(16)}`, '');
    created++;
  }
  for (const [key, value] of entries.cluster) {
    if (!key.equals(ClusterKey.version)) continue;
    tree.put('/0/version', value.toString());
    set++;
  }
  return Buffer.from(storeText(tree, created, set));
}

function storeText(tree: Tree, created: number, set: number): string {
  const history = {
    Queue: { Events: new Array(HISTORY_EVENTS).fill(null), Size: 0, Front: 0, Back: 0, Capacity: HISTORY_EVENTS },
    StartIndex: tree.index,
    LastIndex: tree.index,
  };
  const stats = {
    getsSuccess: 0,
    getsFail: 0,
    setsSuccess: set,
    setsFail: 0,
    deleteSuccess: 0,
    deleteFail: 0,
    updateSuccess: 0,
    updateFail: 0,
    createSuccess: created,
    createFail: 0,
    compareAndSwapSuccess: 0,
    compareAndSwapFail: 0,
    compareAndDeleteSuccess: 0,
    compareAndDeleteFail: 0,
    expireCount: 0,
    watchers: 0,
  };
  return JSON.stringify({
    Root: tree.root,
    WatcherHub: { EventHistory: history },
    CurrentIndex: tree.index,
    Stats: stats,
    CurrentVersion: 2,
  });
}
