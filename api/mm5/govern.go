package mm5

// Wrapped is a response of EdgeGallery's statistics. RetCode is 0, Message and Params are empty: errors are problem documents.
type Wrapped[T any] struct {
	Data    T      `json:"data"`
	RetCode int    `json:"retCode"`
	Message string `json:"message"`
	Params  string `json:"params"`
}

// CallDays is the number of days for which the calls of a service are reported.
const CallDays = 7

// CallLog holds the numbers of calls of services through the gateway, in EdgeGallery's format. No list is null.
type CallLog struct {
	// AppServices are the existing services, one entry for each serName, ordered by name.
	AppServices []ServiceCalls `json:"appServices"`
	// MEPServices are the platform's own services: serviceRegister and serviceDiscovery.
	MEPServices []ServiceCalls `json:"mepServices"`
}

// ServiceCalls holds the numbers of calls of a service.
type ServiceCalls struct {
	Name string `json:"name"`
	// Desc is always empty.
	Desc string `json:"desc"`
	// CallTimes counts calls: first those since midnight (UTC), then those of each previous day.
	CallTimes [CallDays]int64 `json:"callTimes"`
}

// SubscribeStatistic reports which app instances subscribed to which services, in EdgeGallery's format.
type SubscribeStatistic struct {
	SubscribeNum SubscribeNum `json:"subscribeNum"`
	// SubscribeRelations has an entry for each app instance that subscribed to an existing service. It is never null.
	SubscribeRelations []SubscribeRelation `json:"subscribeRelations"`
}

// SubscribeNum holds the totals of a SubscribeStatistic.
type SubscribeNum struct {
	// AppSubscribeNum is the number of app instances that subscribed, ServiceSubscribedNum the number of distinct service names
	// that they subscribed to.
	AppSubscribeNum      int `json:"appSubscribeNum"`
	ServiceSubscribedNum int `json:"serviceSubscribedNum"`
}

// SubscribeRelation lists the services that an app instance subscribed to.
type SubscribeRelation struct {
	SubscribeAppID string `json:"subscribeAppId"`
	// ServiceList holds serInstanceIds, sorted.
	ServiceList []string `json:"serviceList"`
}
