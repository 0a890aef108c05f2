// What strikes a simulated cluster, at random times of the means that its options give: processes killed, machines that lose power at
// any write, pauses, cuts of the network in one direction or both, clogged links, disks that stand still, are full or damage what
// they hold (sim-damage.ts, sim-rot.ts), wall clocks that jump, leadership handed about. Never more at once than the cluster must survive for safety: that is all of it.

import { type Damage, damageOf } from './sim-damage.ts';
import type { SimMember, SimWorld } from './sim-member.ts';
import type { FaultRates } from './sim-options.ts';
import { type RotWatch, rotRow } from './sim-rot.ts';

/** How often somebody looks who is down. */
const lookMs = 50;

type FaultKind = Exclude<keyof FaultRates, 'operator' | 'restart'>;

export class FaultInjector {
  readonly counts: Record<FaultKind, number> = {
    kill: 0,
    power: 0,
    pause: 0,
    cut: 0,
    clog: 0,
    stall: 0,
    wallJump: 0,
    fullDisk: 0,
    transfer: 0,
    damage: 0,
  };
  private readonly world: SimWorld;
  private readonly members: readonly SimMember[];
  private readonly rates: FaultRates;
  private readonly rotWatch: RotWatch | null;
  private isOver = false;

  /** With a `rotWatch` what is damaged is rows. */
  constructor(world: SimWorld, members: readonly SimMember[], rates: FaultRates, rotWatch: RotWatch | null) {
    this.world = world;
    this.members = members;
    this.rates = rates;
    this.rotWatch = rotWatch;
  }

  start(): void {
    for (const kind of Object.keys(this.counts) as FaultKind[]) this.plan(kind);
    this.watchOver();
  }

  /** Faults end: what was broken is mended. */
  stop(): void {
    this.isOver = true;
    this.world.network.heal();
    for (const sim of this.members) {
      sim.stalledUntilMs = 0;
      sim.disk.capacityBytes = Number.POSITIVE_INFINITY;
      sim.disk.crashAfter = Number.POSITIVE_INFINITY;
    }
  }

  /** What is down comes back after a while, whatever ended it. */
  private watchOver(): void {
    const { loop, random } = this.world;
    for (const sim of this.members) {
      if (sim.isUp || sim.wasRemoved || sim.isLost || sim.starts === 0) continue;
      if (this.isOver || random.float() < lookMs / this.rates.restart) this.restart(sim);
    }
    loop.after(lookMs, () => this.watchOver());
  }

  private restart(sim: SimMember): void {
    if (this.isOver || this.world.random.below(3) > 0) sim.disk.capacityBytes = Number.POSITIVE_INFINITY;
    const { damage } = sim;
    sim.start();
    const { lastFatal } = sim;
    if (damage !== null) {
      this.judge(sim, damage);
      return;
    }
    const isFull = sim.disk.capacityBytes < Number.POSITIVE_INFINITY;
    if (lastFatal !== null && !sim.isUp && !isFull) {
      this.world.violated(`${sim.name} does not start: ${lastFatal.message}`);
    }
  }

  /** A member on damaged data has to end with the exit code of that, at once. */
  private judge(sim: SimMember, { what, exitCode, isMet, isPassing }: Damage): void {
    sim.damage = null;
    const said = sim.lastFatal;
    if (sim.isUp && !isMet) return;
    if (sim.isUp || said?.exitCode !== exitCode) {
      const end = said === null ? 'starts' : `ends with exit code ${said.exitCode} (${said.message})`;
      this.world.violated(`${sim.name} ${end} on damaged data: ${what}`);
    }
    sim.isLost = !isPassing;
  }

  private plan(kind: FaultKind): void {
    const { loop, random } = this.world;
    const meanMs = this.rates[kind];
    if (meanMs === Infinity) return;
    loop.after(-meanMs * Math.log(1 - random.float()), () => {
      if (this.isOver) return;
      this.strike(kind);
      this.plan(kind);
    });
  }

  private strike(kind: FaultKind): void {
    const { random, loop, network } = this.world;
    let sim = this.members[random.below(this.members.length)]!;
    // The end of a leader is what brings most about.
    if (kind === 'kill' && random.below(2) === 0)
      sim = this.members.find(({ member }) => member?.isLeader === true) ?? sim;
    if (!sim.isUp) return;
    this.counts[kind]++;
    switch (kind) {
      case 'kill':
        sim.die('kill', 'a signal');
        return;
      case 'power':
        // At one of its next writes, in the middle of it at times; or now.
        if (random.below(3) === 0) sim.die('power', 'a fault');
        else sim.disk.crashAfter = sim.disk.changes + random.below(30);
        return;
      case 'pause': {
        // Its clock goes on: for the process it is a jump ahead, as after a machine's suspension.
        const forMs = random.below([300, 300, 6000, 20_000][random.below(4)]!);
        this.world.note(`${sim.name} pauses for ${forMs} ms`);
        sim.pause(forMs);
        return;
      }
      case 'cut':
        this.cut();
        return;
      case 'clog': {
        const other = this.members[random.below(this.members.length)]!;
        const [from, to] = [idOf(sim), idOf(other)];
        if (from !== null && to !== null && from !== to) network.clog(from, to, random.below(4000));
        return;
      }
      case 'stall':
        sim.stalledUntilMs = loop.nowMs + random.below(4000);
        this.world.note(`${sim.name}'s disk stalls`);
        return;
      case 'wallJump':
        sim.jumpWall(random.below(7_200_000) - 3_600_000);
        return;
      case 'fullDisk':
        sim.disk.capacityBytes = random.below(40_000);
        this.world.note(`${sim.name}'s disk is full`);
        return;
      case 'transfer':
        this.transfer();
        return;
      case 'damage':
        this.damage(sim);
    }
  }

  /** Two sides, or one direction between two; each cut stays for a while. */
  private cut(): void {
    const { random, network, loop } = this.world;
    const ids = this.members.map(idOf).filter((id) => id !== null);
    const sideOf = new Map(ids.map((id) => [id, random.below(2)]));
    const isOneWay = random.below(3) === 0;
    const pairs: [bigint, bigint][] = [];
    for (const from of ids) {
      for (const to of ids) {
        const isBetween = sideOf.get(from) !== sideOf.get(to);
        if (isBetween && (!isOneWay || sideOf.get(from) === 0)) pairs.push([from, to]);
      }
    }
    this.world.note(`cut ${isOneWay ? 'one way ' : ''}of ${pairs.length} links`);
    for (const [from, to] of pairs) network.cut(from, to);
    loop.after(200 + random.below(8000), () => {
      for (const [from, to] of pairs) network.mend(from, to);
    });
  }

  /** Of one member at a time, and of three at least: the others have to go on without it. */
  private damage(sim: SimMember): void {
    const { members, world } = this;
    const voters = sim.member?.parts.raft.status().confState.voters ?? [];
    if (voters.length < 3 || !sim.isServing) return;
    if (members.some((one) => one.isLost || one.damage !== null || one.rot !== null || one.isUnplaced)) return;
    sim.die('power', 'its disk fails');
    sim.disk.capacityBytes = Number.POSITIVE_INFINITY;
    if (this.rotWatch !== null) {
      sim.rot = rotRow(sim, world.random);
      if (sim.rot === null) return;
      this.rotWatch.counts.rotted++;
      world.note(`a row of ${sim.name} has rotted`);
      return;
    }
    sim.damage = damageOf(sim, world.random);
    if (sim.damage !== null) world.note(`${sim.name} is damaged: ${sim.damage.what}`);
  }

  private transfer(): void {
    const leader = this.members.find((sim) => sim.member?.isLeader === true);
    const to = this.members[this.world.random.below(this.members.length)]!;
    const id = idOf(to);
    if (leader === undefined || id === null) return;
    this.world.note(`leadership from ${leader.name} to ${to.name}`);
    leader.enter(() => {
      leader.member?.leadership.move(id, 3000, () => {});
      leader.member?.wake();
    });
  }
}

function idOf(sim: SimMember): bigint | null {
  return sim.member?.parts.id ?? null;
}
