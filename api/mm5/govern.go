package mm5

// Wrapped is an answer as EdgeGallery's statistics have it. RetCode is 0, Message and Params are empty: what fails is a problem
// document.
type Wrapped[T any] struct {
	Data    T      `json:"data"`
	RetCode int    `json:"retCode"`
	Message string `json:"message"`
	Params  string `json:"params"`
}

// CallDays is how many days the calls of a service are told for.
const CallDays = 7

// CallLog is how often services were called over the gateway, as EdgeGallery spells it. No list is null.
type CallLog struct {
	// AppServices are the services there are, one entry for each serName, in the order of the names.
	AppServices []ServiceCalls `json:"appServices"`
	// MEPServices are what the platform itself offers: serviceRegister and serviceDiscovery.
	MEPServices []ServiceCalls `json:"mepServices"`
}

// ServiceCalls is how often a service was called.
type ServiceCalls struct {
	Name string `json:"name"`
	// Desc is always empty.
	Desc string `json:"desc"`
	// CallTimes counts calls: first those since midnight (UTC), then those of each day before.
	CallTimes [CallDays]int64 `json:"callTimes"`
}

// SubscribeStatistic is who subscribed to which services, as EdgeGallery spells it.
type SubscribeStatistic struct {
	SubscribeNum SubscribeNum `json:"subscribeNum"`
	// SubscribeRelations has an entry for each app instance that subscribed to a service there is. It is never null.
	SubscribeRelations []SubscribeRelation `json:"subscribeRelations"`
}

// SubscribeNum counts.
type SubscribeNum struct {
	// AppSubscribeNum is how many app instances subscribed, ServiceSubscribedNum to how many services of different names.
	AppSubscribeNum      int `json:"appSubscribeNum"`
	ServiceSubscribedNum int `json:"serviceSubscribedNum"`
}

// SubscribeRelation is the services an app instance subscribed to.
type SubscribeRelation struct {
	SubscribeAppID string `json:"subscribeAppId"`
	// ServiceList are serInstanceIds, in their order.
	ServiceList []string `json:"serviceList"`
}
