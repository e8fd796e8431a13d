//! Random slices and claims against a search that tries everything and knows nothing of the allocator: what is
//! allocated satisfies every request, no device is given twice, and whenever there is a solution one is found.

use std::collections::BTreeSet;

use super::*;
use crate::server::scheduler::tests::dice::Dice;

const RUNS: u64 = 400;

/// A device by its color, how much of a counter it needs, and whether another claim has it.
#[derive(Clone)]
struct One {
    name: String,
    color: u64,
    counter: u64,
    taken: bool,
}

/// A number of devices of a color, or of any.
#[derive(Clone)]
struct Wish {
    claim: usize,
    color: Option<u64>,
    count: usize,
}

/// Constraint of a claim over all its requests: equal or distinct colors.
type Rule = Option<bool>;

struct Puzzle {
    devices: Vec<One>,
    counter: u64,
    /// Alternatives of each request.
    requests: Vec<Vec<Wish>>,
    rules: Vec<Rule>,
}

fn puzzle(dice: &mut Dice) -> Puzzle {
    let device = |dice: &mut Dice, i: u64| One {
        name: format!("d{i}"),
        color: dice.below(3),
        counter: dice.below(3),
        taken: dice.one_in(5),
    };
    let devices = (0..2 + dice.below(4)).map(|i| device(dice, i)).collect();
    let claims = usize::try_from(1 + dice.below(2)).unwrap();
    let mut requests = Vec::new();
    for claim in 0..claims {
        for _ in 0..1 + dice.below(2) {
            let wish = |dice: &mut Dice| Wish {
                claim,
                color: (!dice.one_in(3)).then(|| dice.below(3)),
                count: usize::try_from(1 + dice.below(2)).unwrap(),
            };
            let alternatives = if dice.one_in(3) { 2 } else { 1 };
            requests.push((0..alternatives).map(|_| wish(dice)).collect());
        }
    }
    let rules = (0..claims).map(|_| dice.one_in(2).then(|| dice.one_in(2))).collect();
    Puzzle { devices, counter: dice.below(6), requests, rules }
}

impl Puzzle {
    fn shop(&self) -> Shop {
        let mut counters = slice("counters", "p", &json!([]));
        counters["spec"].as_object_mut().unwrap().remove("devices");
        counters["spec"]["sharedCounters"] =
            json!([{ "name": "s", "counters": { "n": { "value": self.counter.to_string() } } }]);
        let devices: Vec<Value> = self
            .devices
            .iter()
            .map(|d| {
                let mut device = colored(&d.name, &d.color.to_string());
                if d.counter > 0 {
                    let n = d.counter.to_string();
                    device["consumesCounters"] = json!([{ "counterSet": "s", "counters": { "n": { "value": n } } }]);
                }
                device
            })
            .collect();
        let mut slices = [counters, slice("devices", "p", &json!(devices))];
        slices.iter_mut().for_each(|s| s["spec"]["pool"]["resourceSliceCount"] = json!(2));
        let mut shop = Shop::new(&slices);
        for (claim, rule) in self.rules.iter().enumerate() {
            let ask = |wish: &Wish| {
                let selectors = wish.color.map_or(json!([]), |c| red(&c.to_string()));
                json!({ "deviceClassName": "any", "count": wish.count, "selectors": selectors })
            };
            let own = self.requests.iter().enumerate().filter(|(_, alternatives)| alternatives[0].claim == claim);
            let requests: Vec<Value> = own
                .map(|(i, alternatives)| match alternatives.as_slice() {
                    [one] => json!({ "name": format!("r{i}"), "exactly": ask(one) }),
                    many => {
                        let named = many.iter().enumerate().map(|(j, wish)| {
                            let mut ask = ask(wish);
                            ask["name"] = json!(format!("a{j}"));
                            ask
                        });
                        json!({ "name": format!("r{i}"), "firstAvailable": named.collect::<Vec<_>>() })
                    }
                })
                .collect();
            let constraints = rule.map_or(json!([]), |distinct| {
                let key = if distinct { "distinctAttribute" } else { "matchAttribute" };
                json!([{ key: "x.io/color" }])
            });
            shop = shop.claim(&json!({ "requests": requests, "constraints": constraints }));
        }
        let taken: Vec<Value> = self.devices.iter().filter(|d| d.taken).map(|d| json!(d.name)).collect();
        if taken.is_empty() { shop } else { shop.taken("p", &taken) }
    }

    /// Whether these devices of these claims keep every rule.
    fn holds(&self, given: &[(usize, usize)]) -> bool {
        let unique: BTreeSet<usize> = given.iter().map(|(_, device)| *device).collect();
        let before: u64 = self.devices.iter().filter(|d| d.taken).map(|d| d.counter).sum();
        let now: u64 = unique.iter().map(|d| self.devices[*d].counter).sum();
        // Others may have more than there is by now: who consumes nothing does not mind.
        let counted = now == 0 || before + now <= self.counter;
        unique.len() == given.len()
            && counted
            && given.iter().all(|(_, device)| !self.devices[*device].taken)
            && self.rules.iter().enumerate().all(|(claim, rule)| {
                let own = given.iter().filter(|(of, _)| *of == claim).map(|(_, d)| self.devices[*d].color);
                let colors: Vec<u64> = own.collect();
                let different: BTreeSet<u64> = colors.iter().copied().collect();
                match rule {
                    None => true,
                    Some(true) => different.len() == colors.len(),
                    Some(false) => different.len() <= 1,
                }
            })
    }

    /// Tries everything.
    fn is_solvable(&self, request: usize, given: &mut Vec<(usize, usize)>) -> bool {
        let Some(alternatives) = self.requests.get(request) else { return self.holds(given) };
        alternatives.iter().any(|wish| self.any(request, wish, wish.count, given))
    }

    fn any(&self, request: usize, wish: &Wish, left: usize, given: &mut Vec<(usize, usize)>) -> bool {
        if left == 0 {
            return self.is_solvable(request + 1, given);
        }
        (0..self.devices.len()).any(|device| {
            if wish.color.is_some_and(|color| color != self.devices[device].color) {
                return false;
            }
            given.push((wish.claim, device));
            let solved = self.any(request, wish, left - 1, given);
            given.pop();
            solved
        })
    }

    /// What was allocated is what was asked for.
    fn check(&self, found: &[AllocationResult], seed: u64) {
        let mut given = Vec::new();
        for (i, alternatives) in self.requests.iter().enumerate() {
            let claim = alternatives[0].claim;
            let of = |name: &str| name == format!("r{i}") || name.starts_with(&format!("r{i}/"));
            let own: Vec<_> = results(&found[claim]).iter().filter(|r| of(&r.request)).collect();
            let which = own[0].request.split_once("/a").map_or(0, |(_, j)| j.parse().unwrap());
            let wish: &Wish = &alternatives[which];
            assert_eq!(own.len(), wish.count, "seed {seed}");
            for result in own {
                let device = self.devices.iter().position(|d| d.name == result.device).unwrap();
                assert!(wish.color.is_none_or(|color| color == self.devices[device].color), "seed {seed}");
                given.push((claim, device));
            }
        }
        assert!(self.holds(&given), "seed {seed}: {given:?}");
    }
}

#[test]
fn what_can_be_allocated_is() {
    let mut solved = 0;
    for seed in 0..RUNS {
        let puzzle = puzzle(&mut Dice(seed));
        match puzzle.shop().results() {
            Ok(found) => {
                puzzle.check(&found, seed);
                solved += 1;
            }
            Err(why) => assert!(!puzzle.is_solvable(0, &mut Vec::new()), "seed {seed}: {why:?}"),
        }
    }
    assert!(solved > RUNS / 10 && solved < RUNS * 9 / 10, "{solved} of {RUNS}: they show little");
}
