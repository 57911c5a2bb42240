//! Which services there are, and who may serve them without a token. Set by the relay's operator, asked by the
//! [`Book`](crate::Book).

use std::collections::BTreeMap;

use crate::ids::ServiceName;
use crate::limits::ServiceLimits;

/// What the relay's operator has decided about services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Those that clients can ask for.
    pub services: BTreeMap<ServiceName, ServiceLimits>,
    /// The one that hosts without a token serve: all of version 1, and those of version 2 that may do without. `None`: there are
    /// no such hosts.
    pub open_service: Option<ServiceName>,
    /// Whether hosts with tokens may serve that one as well.
    pub mixed: bool,
}

impl Default for Policy {
    /// One service, called `default`, for hosts without tokens.
    fn default() -> Policy {
        let name = ServiceName::default();
        Policy {
            services: BTreeMap::from([(name.clone(), ServiceLimits::default())]),
            open_service: Some(name),
            mixed: false,
        }
    }
}
