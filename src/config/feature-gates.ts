// etcd's feature gates: which exist in 3.7, their defaults and stages, and --feature-gates "A=true,B=false". Texts and order
// of effects follow etcd's pkg/featuregate.

import { goQuote, parseBoolean } from './go-value.ts';

export interface FeatureGate {
  readonly name: string;
  readonly stage: 'ALPHA' | 'BETA';
  readonly byDefault: boolean;
}

const alpha = (name: string): FeatureGate => ({ name, stage: 'ALPHA', byDefault: false });
const beta = (name: string): FeatureGate => ({ name, stage: 'BETA', byDefault: true });

/** Sorted by name. AllAlpha and AllBeta come from the library and switch every gate of their stage not named itself. */
export const featureGates: readonly FeatureGate[] = [
  { name: 'AllAlpha', stage: 'ALPHA', byDefault: false },
  { name: 'AllBeta', stage: 'BETA', byDefault: false },
  alpha('CompactHashCheck'),
  beta('FastLeaseKeepAlive'),
  alpha('InitialCorruptCheck'),
  alpha('LeaseCheckpoint'),
  alpha('LeaseCheckpointPersist'),
  alpha('PriorityRequest'),
  alpha('SetMemberLocalAddr'),
  alpha('StopGRPCServiceOnDefrag'),
  beta('TxnModeWriteWithSharedBuffer'),
];

const gatesByName: ReadonlyMap<string, FeatureGate> = new Map(featureGates.map((gate) => [gate.name, gate]));

/** Gates set so far over their defaults. Several --feature-gates flags add up, as in etcd. */
export class FeatureGateSet {
  readonly #set: Map<string, boolean> = new Map();

  /** Applies a flag's text. The error, or null. */
  apply(text: string): string | null {
    const named = new Map<string, boolean>();
    for (const part of text.split(',')) {
      if (part === '') continue;
      const equals = part.indexOf('=');
      const name = (equals < 0 ? part : part.slice(0, equals)).trim();
      if (equals < 0) return `missing bool value for ${name}`;
      const valueText = part.slice(equals + 1).trim();
      const value = parseBoolean(valueText);
      if (!value.ok)
        return `invalid value of ${name}=${valueText}, err: strconv.ParseBool: parsing ${goQuote(valueText)}: invalid syntax`;
      named.set(name, value.value);
    }
    for (const name of named.keys()) if (!gatesByName.has(name)) return `unrecognized feature gate: ${name}`;
    for (const [name, value] of named) this.#set.set(name, value);
    for (const [name, value] of named) {
      if (name === 'AllAlpha') this.#setStage('ALPHA', value);
      if (name === 'AllBeta') this.#setStage('BETA', value);
    }
    return null;
  }

  #setStage(stage: FeatureGate['stage'], value: boolean): void {
    for (const gate of featureGates)
      if (gate.stage === stage && !this.#set.has(gate.name)) this.#set.set(gate.name, value);
  }

  enabled(name: string): boolean {
    return this.#set.get(name) ?? gatesByName.get(name)?.byDefault ?? false;
  }

  /** Only what was set, sorted: how etcd logs it. */
  format(): string {
    return [...this.#set.keys()]
      .sort()
      .map((name) => `${name}=${this.#set.get(name)}`)
      .join(',');
  }

  /** Every gate with its state, for the metric etcd_server_feature_enabled. */
  all(): { readonly name: string; readonly stage: string; readonly enabled: boolean }[] {
    return featureGates.map((gate) => ({ name: gate.name, stage: gate.stage, enabled: this.enabled(gate.name) }));
  }
}
