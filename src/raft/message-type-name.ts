// The names of raft's message types as etcd logs them.

import { MessageType } from './types.ts';

const names: ReadonlyMap<number, string> = new Map(
  Object.entries(MessageType).map(([name, type]) => [type, `Msg${name[0]!.toUpperCase()}${name.slice(1)}`]),
);

export function messageTypeName(type: MessageType): string {
  return names.get(type) ?? String(type);
}
