// The replicated alarms: which member raised which. Stored as etcd does: the encoded AlarmMember is the key, the value is empty.

import { type BucketStore, hexId } from '../membership/cluster.ts';
import { AlarmMember, AlarmType } from '../proto/etcdserverpb.ts';
import { decode, encode } from '../proto/message.ts';

export interface Alarm {
  readonly memberId: bigint;
  readonly alarm: number;
}

const EMPTY = Buffer.alloc(0);
const NAMES: readonly string[] = ['NONE', 'NOSPACE', 'CORRUPT'];

/** As it stands in Status.errors and logs. */
export function alarmText(alarm: Alarm): string {
  return `memberID:${alarm.memberId} alarm:${alarmName(alarm.alarm)}`;
}

export function alarmName(type: number): string {
  return NAMES[type] ?? String(type);
}

export class AlarmStore {
  private readonly buckets: BucketStore;
  private readonly active = new Map<string, Alarm>();

  constructor(buckets: BucketStore) {
    this.buckets = buckets;
  }

  /** From the bucket, at start and when another state has taken the place of this one. */
  recover(): void {
    this.active.clear();
    this.buckets.scan('alarm', (key) => {
      const alarm = decode(AlarmMember, key);
      if (alarm !== undefined) this.active.set(keyOf(alarm), alarm);
      return true;
    });
  }

  /** Of one type, or all for `none`. */
  get(type: number): Alarm[] {
    const alarms = [...this.active.values()];
    return type === AlarmType.none ? alarms : alarms.filter((alarm) => alarm.alarm === type);
  }

  has(type: number): boolean {
    for (const alarm of this.active.values()) if (alarm.alarm === type) return true;
    return false;
  }

  /** The alarm, newly raised or raised before (then nothing is stored). */
  activate(memberId: bigint, type: number): Alarm {
    const alarm = { memberId, alarm: type };
    const known = this.active.get(keyOf(alarm));
    if (known !== undefined) return known;
    this.active.set(keyOf(alarm), alarm);
    this.buckets.put('alarm', encode(AlarmMember, alarm), EMPTY);
    return alarm;
  }

  /** The alarm that was taken down, or undefined when it was not up. */
  deactivate(memberId: bigint, type: number): Alarm | undefined {
    const key = keyOf({ memberId, alarm: type });
    const known = this.active.get(key);
    if (known === undefined) return undefined;
    this.active.delete(key);
    this.buckets.remove('alarm', encode(AlarmMember, known));
    return known;
  }
}

function keyOf(alarm: Alarm): string {
  return `${hexId(alarm.memberId)}/${alarm.alarm}`;
}
