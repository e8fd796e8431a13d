//! Effects: what is counted of requests by priority level and FlowSchema. Names and labels are upstream's.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByFlow {
    pub priority_level: String,
    pub flow_schema: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Rejected {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByLevel {
    priority_level: String,
}

/// Cheap to clone: everything inside is shared.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    dispatched: Family<ByFlow, Counter>,
    rejected: Family<Rejected, Counter>,
    executing: Family<ByFlow, Gauge>,
    inqueue: Family<ByFlow, Gauge>,
    nominal: Family<ByLevel, Gauge>,
}

/// The series of one FlowSchema: counting looks nothing up.
#[derive(Clone, Debug)]
pub struct Series {
    pub dispatched: Counter,
    pub executing: Gauge,
    pub inqueue: Gauge,
    pub concurrency_limit: Counter,
    pub queue_full: Counter,
    pub time_out: Counter,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let help = "Number of requests executed by API Priority and Fairness subsystem";
        registry.register("apiserver_flowcontrol_dispatched_requests", help, self.dispatched.clone());
        let help = "Number of requests rejected by API Priority and Fairness subsystem";
        registry.register("apiserver_flowcontrol_rejected_requests", help, self.rejected.clone());
        let help = "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API \
                    Priority and Fairness subsystem";
        registry.register("apiserver_flowcontrol_current_executing_requests", help, self.executing.clone());
        let help = "Number of requests currently pending in queues of the API Priority and Fairness subsystem";
        registry.register("apiserver_flowcontrol_current_inqueue_requests", help, self.inqueue.clone());
        let help = "Nominal number of execution seats configured for each priority level";
        registry.register("apiserver_flowcontrol_nominal_limit_seats", help, self.nominal.clone());
    }

    #[must_use]
    pub fn series(&self, of: &ByFlow) -> Series {
        let rejected = |reason| {
            let ByFlow { priority_level, flow_schema } = of.clone();
            self.rejected.get_or_create(&Rejected { priority_level, flow_schema, reason }).clone()
        };
        Series {
            dispatched: self.dispatched.get_or_create(of).clone(),
            executing: self.executing.get_or_create(of).clone(),
            inqueue: self.inqueue.get_or_create(of).clone(),
            concurrency_limit: rejected("concurrency-limit"),
            queue_full: rejected("queue-full"),
            time_out: rejected("time-out"),
        }
    }

    /// What there no longer is takes its series along, so that they do not pile up.
    pub fn forget(&self, of: &ByFlow) {
        self.dispatched.remove(of);
        self.executing.remove(of);
        self.inqueue.remove(of);
        for reason in ["concurrency-limit", "queue-full", "time-out"] {
            let ByFlow { priority_level, flow_schema } = of.clone();
            self.rejected.remove(&Rejected { priority_level, flow_schema, reason });
        }
    }

    /// The seats of all levels.
    pub fn nominal<'a>(&self, levels: impl Iterator<Item = (&'a str, u32)>) {
        self.nominal.clear();
        for (priority_level, seats) in levels {
            let label = ByLevel { priority_level: priority_level.to_owned() };
            self.nominal.get_or_create(&label).set(seats.into());
        }
    }
}
